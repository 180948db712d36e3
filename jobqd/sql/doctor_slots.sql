-- Replication slots that nobody uses: they keep WAL until the disk is full, and some hold vacuum back. One that is in use
-- holds it back by what its replica still reads (hot_standby_feedback): a few transactions are nothing to mention.
SELECT 'warn',
       format('replication slot %s is not in use, but keeps %s of WAL%s', s.slot_name,
              coalesce(pg_size_pretty(CASE WHEN NOT pg_is_in_recovery()
                                           THEN pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn) END), 'some'),
              CASE WHEN s.xmin IS NOT NULL OR s.catalog_xmin IS NOT NULL
                   THEN format(', and holds vacuum back by %s transactions', greatest(age(s.xmin), age(s.catalog_xmin)))
                   ELSE '' END),
       format('if its replica is gone for good: SELECT pg_drop_replication_slot(%L)', s.slot_name)
  FROM pg_replication_slots s
 WHERE NOT s.active AND (s.restart_lsn IS NOT NULL OR s.xmin IS NOT NULL OR s.catalog_xmin IS NOT NULL)
UNION ALL
SELECT 'warn',
       format('the replica of slot %s holds vacuum back by %s transactions', s.slot_name, greatest(age(s.xmin), age(s.catalog_xmin))),
       'see what it is running and how far behind it is; hot_standby_feedback = off there stops this'
  FROM pg_replication_slots s
 WHERE s.active AND greatest(age(s.xmin), age(s.catalog_xmin)) > 10000
 ORDER BY 2
