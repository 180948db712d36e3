-- Notes a migration that was applied before, where its row is missing: a dump of the schema alone has none.
--   $1 version  $2 name
INSERT INTO @schema@.schema_version (version, name) VALUES ($1::int, $2) ON CONFLICT DO NOTHING
