-- The migrations that were applied to this schema, one row each.
CREATE TABLE @schema@.schema_version (
    version    int PRIMARY KEY,
    name       text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
