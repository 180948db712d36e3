-- When each migration was applied.
SELECT v.version, v.name, to_char(v.applied_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS applied_at
  FROM @schema@.schema_version v
 ORDER BY v.version
