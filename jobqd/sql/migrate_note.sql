-- A migration was applied.
--   $1 version  $2 name
INSERT INTO @schema@.schema_version (version, name) VALUES ($1::int, $2)
