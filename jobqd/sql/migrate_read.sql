-- The last step that was noted: the version of a schema from before it had jobq.version().
SELECT coalesce(max(v.version), 0) FROM @schema@.schema_version v
