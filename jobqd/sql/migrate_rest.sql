-- Whether anything is left in the schema.
SELECT EXISTS (SELECT FROM pg_catalog.pg_depend d
                 JOIN pg_catalog.pg_namespace n ON n.oid = d.refobjid
                WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND n.nspname = '@channel@')
