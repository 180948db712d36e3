-- Whether the schema and its table of versions are there.
SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname = '@channel@'),
       EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = '@channel@' AND c.relname = 'schema_version')
