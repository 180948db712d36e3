-- What autovacuum is told about the live table.
SELECT 'warn', name || ' is off: dead rows of @channel@.jobs are never removed', 'set ' || name || ' = on'
  FROM pg_settings WHERE name IN ('autovacuum', 'track_counts') AND setting = 'off'
UNION ALL
SELECT 'warn', 'autovacuum is off for jobs: its dead rows are never removed',
       'ALTER TABLE @schema@.jobs RESET (autovacuum_enabled)'
  FROM pg_class c WHERE c.oid = '@schema@.jobs'::regclass AND 'autovacuum_enabled=false' = ANY (c.reloptions)
UNION ALL
SELECT 'warn', 'jobs has lost its storage settings from migration 1: autovacuum runs too late, or claims are not HOT updates',
       'ALTER TABLE @schema@.jobs SET (fillfactor = 45, autovacuum_vacuum_scale_factor = 0.02, '
       'autovacuum_vacuum_cost_delay = 0)'
  FROM pg_class c
 WHERE c.oid = '@schema@.jobs'::regclass
   AND (SELECT count(*) FROM unnest(c.reloptions) o
         WHERE o LIKE 'fillfactor=%' OR o LIKE 'autovacuum_vacuum_scale_factor=%') < 2
