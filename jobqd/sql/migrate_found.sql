-- Whether the schema exists, and in it the history of steps and a table of migration 1; then what version() would say, read
-- from its text: the caller needs no right on it, and runs nothing of a schema that may be another's. Last: whether
-- a jobq from before the first release made it, whose internal functions had no `_` yet.
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
         WHERE p.proname = 'version' AND p.pronargs = 0),
       EXISTS (SELECT FROM named JOIN pg_catalog.pg_proc p ON p.pronamespace = named.oid
                WHERE p.proname = 'next_position' AND p.pronargs = 0)
