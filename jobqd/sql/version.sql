-- The schema's version; whether transactions see what was committed while they waited for a lock; and whether the database
-- holds any text: for the check before a node registers. version() is read and not called, as in migrate_found.sql: while this is
-- under way, foreign.sql may be answered that the schema is another's.
SELECT coalesce((SELECT substring(p.prosrc FROM '^[[:space:]]*(?:SELECT|select)[[:space:]]+([0-9]{1,6})[[:space:];]*$')
                   FROM pg_proc p WHERE p.oid = '@schema@.version()'::regprocedure)::int, 0),
       current_setting('transaction_isolation') = 'read committed',
       current_setting('server_encoding') = 'UTF8'
