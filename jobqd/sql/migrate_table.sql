-- A dump of the schema without its data leaves it empty; `migrate up` fills it again (migrate_fill).
CREATE TABLE @schema@.schema_version (
    version    int PRIMARY KEY,
    name       text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE @schema@.schema_version IS
'The migrations that are applied to this schema, one row each. jobqd migrate writes it; version() tells the last one, also
after a dump of the schema without its data.';
COMMENT ON COLUMN @schema@.schema_version.version IS 'The number of the migration.';
COMMENT ON COLUMN @schema@.schema_version.name IS 'Its name.';
COMMENT ON COLUMN @schema@.schema_version.applied_at IS 'When it was applied.'
