-- The schema's version, for the check at each connect.
SELECT max(v.version) FROM @schema@.schema_version v
