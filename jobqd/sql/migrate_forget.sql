-- Every step above this one was taken back.
--   $1 version
DELETE FROM @schema@.schema_version WHERE version > $1::int
