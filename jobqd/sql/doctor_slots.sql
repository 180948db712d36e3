-- Replication slots that nobody uses: they keep WAL until the disk is full, and some hold vacuum back.
SELECT 'warn',
       format('replication slot %s is not in use, and keeps %s of WAL%s', s.slot_name,
              coalesce(pg_size_pretty(CASE WHEN NOT pg_is_in_recovery()
                                           THEN pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn) END), 'some'),
              CASE WHEN s.xmin IS NOT NULL OR s.catalog_xmin IS NOT NULL
                   THEN format(', and vacuum back by %s transactions', greatest(age(s.xmin), age(s.catalog_xmin)))
                   ELSE '' END),
       format('if its replica does not come back: SELECT pg_drop_replication_slot(%L)', s.slot_name)
  FROM pg_replication_slots s
 WHERE NOT s.active AND (s.restart_lsn IS NOT NULL OR s.xmin IS NOT NULL OR s.catalog_xmin IS NOT NULL)
 ORDER BY s.slot_name
