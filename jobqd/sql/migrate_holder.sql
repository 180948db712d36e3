-- Who most probably held the lock that a migration has just waited for in vain: the oldest transaction that has one of the
-- schema's relations locked, or the other migration. Its pid, a description, and whether it is an autovacuum that
-- may be cancelled. What we may not see of sessions of other roles is left out.
--   $1 how long the migration has waited, in ms: younger transactions were not there before it
WITH held AS (
    SELECT l.pid, l.virtualtransaction, min(c.relname) AS relation
      FROM pg_locks l
      JOIN pg_class c ON c.oid = l.relation
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE l.locktype = 'relation' AND l.granted AND n.nspname = '@channel@' AND c.relkind IN ('r', 'p', 'v')
       AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
     GROUP BY 1, 2
    UNION ALL
    SELECT l.pid, l.virtualtransaction, NULL
      FROM pg_locks l, hashtextextended('jobq migrate @channel@', 0) AS key
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
       AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
       AND l.classid::bigint = key >> 32 & 4294967295 AND l.objid::bigint = key & 4294967295
)
SELECT h.pid,
       CASE WHEN h.pid IS NULL THEN format('the prepared transaction %s', coalesce(quote_literal(p.gid), '?'))
            ELSE CASE WHEN h.relation IS NULL THEN 'another migration, ' ELSE '' END
                 || format('pid %s (%s)', h.pid, concat_ws(', ', 'role ' || a.usename, nullif(a.application_name, ''),
                        CASE WHEN a.backend_type <> 'client backend' THEN a.backend_type END, a.state,
                        'its transaction began ' || to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
                        'its query ' || to_char(a.query_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))) END,
       coalesce(a.backend_type = 'autovacuum worker' AND a.query NOT LIKE '%(to prevent wraparound)', false)
  FROM held h
  LEFT JOIN pg_stat_activity a ON a.pid = h.pid
  LEFT JOIN pg_locks x ON h.pid IS NULL AND x.pid IS NULL AND x.virtualtransaction = h.virtualtransaction
                          AND x.locktype = 'transactionid'
  LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid
 WHERE h.pid IS DISTINCT FROM pg_backend_pid()
   AND coalesce(coalesce(a.xact_start, p.prepared) < clock_timestamp() - $1::int * interval '1 millisecond', true)
 ORDER BY coalesce(a.xact_start, p.prepared) NULLS LAST
 LIMIT 1
