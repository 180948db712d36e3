-- What the connecting role lacks to run jobqd. To make and drop partitions it must own the history.
WITH tables (name, rights) AS (VALUES
    ('jobs', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']), ('finished_jobs', ARRAY['SELECT', 'INSERT', 'DELETE']),
    ('nodes', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']), ('leader', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
    ('finished_completed', ARRAY['INSERT']), ('idle', ARRAY['SELECT', 'INSERT', 'DELETE']),
    ('cancels', ARRAY['SELECT', 'UPDATE', 'DELETE']), ('queues', ARRAY['SELECT']), ('queue_nodes', ARRAY['SELECT']), ('schema_version', ARRAY['SELECT'])
), functions (name) AS (VALUES
    ('next_position'), ('wake'), ('cancel_again'), ('create_partitions'), ('drop_partitions'),
    ('expire_jobs'), ('prune_uniques'), ('queues_retention'), ('prune_history'), ('note_progress'), ('sweep_progress'),
    ('cron_fire'), ('cron_declare'), ('cron_boot'), ('cron_sweep')
), found AS (
    SELECT t.name, wanted.privilege
      FROM tables t
      JOIN pg_namespace n ON n.nspname = '@channel@'
      JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.name
     CROSS JOIN LATERAL unnest(t.rights) AS wanted (privilege)
     WHERE NOT has_table_privilege(c.oid, wanted.privilege)
    UNION ALL
    SELECT p.oid::regprocedure::text, 'EXECUTE'
      FROM functions f
      JOIN pg_namespace n ON n.nspname = '@channel@'
      JOIN pg_proc p ON p.pronamespace = n.oid AND p.proname = f.name
     WHERE NOT has_function_privilege(p.oid, 'EXECUTE')
    UNION ALL
    SELECT c.relname, wanted.privilege
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = '@channel@'
     CROSS JOIN (VALUES ('SELECT'), ('USAGE')) AS wanted (privilege)
     WHERE c.relname = 'jobs_position_seq' AND NOT has_sequence_privilege(c.oid, wanted.privilege)
), lacks AS (
    SELECT string_agg(what, ', ' ORDER BY what) AS what
      FROM (SELECT string_agg(privilege, ' and ' ORDER BY privilege) || ' on ' || name AS what FROM found GROUP BY name) l
), owner AS (
    SELECT pg_get_userbyid(c.relowner) AS name, pg_has_role(c.relowner, 'USAGE') AS ours
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = '@channel@'
     WHERE c.relname = 'finished_jobs'
)
SELECT CASE WHEN l.what IS NOT NULL THEN 'fail' WHEN o.ours THEN 'ok' ELSE 'warn' END,
       format(CASE WHEN l.what IS NOT NULL THEN '%1$s has no right to %2$s: jobqd cannot run as this role'
                   WHEN o.ours THEN '%1$s may do what jobqd does'
                   ELSE '%1$s does not own the history: no node that runs as it can make or drop its partitions' END,
              current_user, l.what),
       CASE WHEN l.what IS NOT NULL OR NOT o.ours
            THEN format('run jobqd as %1$I, or GRANT %1$I TO %2$I', o.name, current_user) END
  FROM lacks l, owner o
