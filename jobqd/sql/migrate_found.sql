-- Whether the schema is there, and in it the history of steps and a table of migration 1; then what version() would say, read
-- from its text: whoever asks need not have a right on it, and runs nothing of a schema that may be another's.
WITH named AS (
    SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = '@channel@'
)
SELECT EXISTS (SELECT FROM named),
       EXISTS (SELECT FROM named JOIN pg_catalog.pg_class c ON c.relnamespace = named.oid WHERE c.relname = 'schema_version'
                                                                          AND c.relkind IN ('r', 'p')),
       EXISTS (SELECT FROM named JOIN pg_catalog.pg_class c ON c.relnamespace = named.oid WHERE c.relname = 'jobs'
                                                                          AND c.relkind IN ('r', 'p')),
       (SELECT substring(p.prosrc FROM '^[[:space:]]*(?:SELECT|select)[[:space:]]+([0-9]{1,6})[[:space:];]*$')
          FROM named JOIN pg_catalog.pg_proc p ON p.pronamespace = named.oid
         WHERE p.proname = 'version' AND p.pronargs = 0)
