-- Dead rows of the live table. Claims do not walk over them, but everything else does, and the disk holds them.
WITH s AS (
    SELECT coalesce(t.n_live_tup, 0) AS live, coalesce(t.n_dead_tup, 0) AS dead,
           pg_size_pretty(pg_total_relation_size('@schema@.jobs'::regclass)) AS size,
           coalesce(to_char(greatest(t.last_autovacuum, t.last_vacuum) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), 'never')
               AS vacuumed
      FROM pg_stat_all_tables t WHERE t.relid = '@schema@.jobs'::regclass
)
SELECT CASE WHEN dead > 50000 AND dead > live THEN 'warn' ELSE 'ok' END,
       format('jobs: %s live rows, %s dead, %s with its indexes, last vacuum %s', live, dead, size, vacuumed),
       CASE WHEN dead > 50000 AND dead > live
            THEN 'fix what holds vacuum back, if one of the checks above names it; then VACUUM @schema@.jobs' END
  FROM s
