-- Whether a job that was committed outlives a crash of the server.
SELECT 'fail', 'jobs is an unlogged table: a crash of the server empties it',
       'ALTER TABLE @schema@.jobs SET LOGGED'
  FROM pg_class c WHERE c.oid = '@schema@.jobs'::regclass AND c.relpersistence = 'u'
UNION ALL
SELECT 'warn', name || ' is off: ' ||
       CASE name WHEN 'synchronous_commit' THEN 'what was committed just before a crash of the server is lost'
                 ELSE 'a crash of the host can destroy the database' END,
       'set ' || name || ' = on'
  FROM pg_settings
 WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'off'
