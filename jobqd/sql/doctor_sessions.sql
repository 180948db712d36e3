-- Sessions that hold vacuum back: dead rows stay for as long as one of these may still see them. A walsender has no
-- transaction of its own: its replica's oldest counts, by how many transactions ago that is.
--   $1 for how long, in ms, that is nothing to mention
WITH others AS (
    SELECT a.*, pg_has_role('pg_read_all_stats', 'USAGE') OR pg_has_role(a.usesysid, 'USAGE') AS visible
      FROM pg_stat_activity a
     WHERE a.pid <> pg_backend_pid() AND (a.datname = current_database() OR a.backend_type = 'walsender')
), holders AS (
    SELECT o.*, greatest(age(o.backend_xmin), age(o.backend_xid)) AS behind
      FROM others o
     WHERE (o.backend_xmin IS NOT NULL OR o.backend_xid IS NOT NULL) AND o.backend_type <> 'autovacuum worker'
       AND CASE WHEN o.backend_type = 'walsender' THEN age(o.backend_xmin) > 10000
                ELSE clock_timestamp() - coalesce(o.xact_start, o.backend_start) >= $1::bigint * interval '1 millisecond' END
     ORDER BY coalesce(o.xact_start, o.backend_start)
     LIMIT 5
)
SELECT 'warn',
       format('%s pid %s (role %s%s%s) has held vacuum back for %s%s transactions', h.backend_type, h.pid,
              coalesce(h.usename, '?'), coalesce(', ' || nullif(h.application_name, ''), ''), coalesce(', ' || h.state, ''),
              CASE WHEN h.backend_type <> 'walsender'
                   THEN date_trunc('second', clock_timestamp() - coalesce(h.xact_start, h.backend_start)) || ', ' END, h.behind),
       CASE WHEN h.backend_type = 'walsender' THEN 'see what its replica is running: hot_standby_feedback is on there'
            ELSE format('end its transaction, or SELECT pg_terminate_backend(%s); set idle_in_transaction_session_timeout '
                        'to end such sessions automatically', h.pid) END
  FROM holders h
UNION ALL
SELECT 'warn', format('cannot see into %s session%s of other roles', count(*), CASE count(*) WHEN 1 THEN '' ELSE 's' END),
       format('GRANT pg_monitor TO %I', current_user)
  FROM others WHERE NOT visible AND usesysid IS NOT NULL
HAVING count(*) > 0
