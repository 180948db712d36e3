-- Whether the schema stays: something is left in it, or this role may make none in this database.
SELECT EXISTS (SELECT FROM pg_catalog.pg_depend d
                 JOIN pg_catalog.pg_namespace n ON n.oid = d.refobjid
                WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND n.nspname = '@channel@')
       OR NOT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')
