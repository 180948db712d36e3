-- The schema's version; whether transactions see what was committed while they waited for a lock; and whether the database
-- holds any text: for the check before a node registers. version() is read and not called, as in migrate_found.sql: while this is
-- under way, foreign.sql may be answered that the schema is another's. -1: a jobq from before the first release made the schema.
SELECT CASE WHEN EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                          WHERE n.nspname = '@channel@' AND p.proname = 'next_position') THEN -1 ELSE coalesce((SELECT substring(p.prosrc FROM '^[[:space:]]*(?:SELECT|select)[[:space:]]+([0-9]{1,6})[[:space:];]*$')
                   FROM pg_proc p WHERE p.oid = '@schema@.version()'::regprocedure)::int, 0) END,
       current_setting('transaction_isolation') = 'read committed',
       current_setting('server_encoding') = 'UTF8'
