-- A migration was applied, now.
--   $1 version  $2 name
INSERT INTO @schema@.schema_version AS v (version, name) VALUES ($1::int, $2)
    ON CONFLICT (version) DO UPDATE SET name = excluded.name, applied_at = excluded.applied_at
