-- The three roles of migration 2, and whether they were let in.
WITH wanted (name) AS (VALUES ('jobq_enqueuer'), ('jobq_viewer'), ('jobq_operator')
), missing AS (
    SELECT string_agg(w.name, ', ' ORDER BY w.name) AS names
      FROM wanted w
      LEFT JOIN pg_roles r ON r.rolname = w.name
     WHERE r.oid IS NULL OR NOT has_schema_privilege(r.oid, '@channel@', 'USAGE')
)
SELECT CASE WHEN names IS NULL THEN 'ok' ELSE 'warn' END,
       coalesce(names || ' missing or without rights in schema @channel@: applications can only use jobq as its owner',
                'jobq_enqueuer, jobq_viewer and jobq_operator are there'),
       CASE WHEN names IS NOT NULL
            THEN 'as a role that may CREATE ROLE: CREATE ROLE ... NOLOGIN for each, then the last block of migration 2 '
                 '(jobqd migrate print) as the owner of the schema' END
  FROM missing
