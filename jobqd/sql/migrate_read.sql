-- The last migration that was applied.
SELECT coalesce(max(v.version), 0) FROM @schema@.schema_version v
