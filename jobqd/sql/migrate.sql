-- The small statements of the migration runner.

-- name: migrate_lock
-- Allows one migration at a time on this schema. The lock is held until the end of the transaction.
--   $1 the schema's name
SELECT pg_advisory_xact_lock(hashtextextended('jobq migrate ' || $1, 0))

-- name: migrate_patience
-- Sets how long a statement of this transaction waits for a lock.
--   $1 ms
SELECT set_config('lock_timeout', $1, true)

-- name: migrate_cancel
-- Cancels the present statement of a session, if we may.
--   $1 its pid
SELECT pg_cancel_backend($1::int)

-- name: migrate_strangers
-- Why no step runs in this schema: it is not ours. The first reason, and how many there are.
--   $1 whether the rights are about to be granted anew: reasons that this removes do not count
WITH RECURSIVE
@strangers@
SELECT s.found, s.remedy, count(*) OVER () FROM strangers s WHERE NOT ($1::boolean AND s.is_grant) ORDER BY s.nth, s.found LIMIT 1

-- name: migrate_bound
-- Why no step runs here: an object that a step of an earlier release made is bound to what another role has planted. The
-- first one, and how many there are.
WITH
@bound@
SELECT b.what, b.remedy, count(*) OVER () FROM bound b ORDER BY b.what LIMIT 1

-- name: migrate_owner
-- The owner of the schema, if that is a role that we are a member of: it must own what a step makes, too.
WITH RECURSIVE
@strangers@
SELECT quote_ident(pg_get_userbyid(o.owner)) FROM owned o WHERE o.owner NOT IN (SELECT me.oid FROM me)

-- name: migrate_read
-- The last step that was recorded: the version of a schema that has no jobq.version() yet.
SELECT coalesce(max(v.version), 0) FROM @schema@.schema_version v

-- name: migrate_version
-- A function, because a dump of the schema without its data keeps it. Each step makes it anew, up and down. migrate.c
-- fills in @version@, because the body of a function takes no parameter. COMMENT ON names the empty argument list, because
-- an application may have put another function of that name into the schema.
CREATE OR REPLACE FUNCTION @schema@.version() RETURNS int LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS 'SELECT @version@';
COMMENT ON FUNCTION @schema@.version() IS
'Returns the version of this schema: the number of the last migration that was applied.'

-- name: migrate_note
-- Records that a migration was applied now.
--   $1 version  $2 name
INSERT INTO @schema@.schema_version AS v (version, name) VALUES ($1::int, $2)
    ON CONFLICT (version) DO UPDATE SET name = excluded.name, applied_at = excluded.applied_at

-- name: migrate_fill
-- Records a migration that was applied earlier, if its row is missing: a dump of the schema without its data has none.
--   $1 version  $2 name
INSERT INTO @schema@.schema_version (version, name) VALUES ($1::int, $2) ON CONFLICT DO NOTHING

-- name: migrate_forget
-- Deletes the records of the steps above this one.
--   $1 version
DELETE FROM @schema@.schema_version WHERE version > $1::int

-- name: migrate_history
-- What schema_version holds of each step: its name, and when it was applied; null where there is no row.
--   $1 how many steps
SELECT v.name, to_char(v.applied_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
  FROM generate_series(1, $1::int) AS step (n)
  LEFT JOIN @schema@.schema_version v ON v.version = step.n
 ORDER BY step.n

-- name: migrate_rest
-- Whether the schema stays: something is left in it, or this role could not create it again.
SELECT EXISTS (SELECT FROM pg_catalog.pg_depend d
                 JOIN pg_catalog.pg_namespace n ON n.oid = d.refobjid
                WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND n.nspname = '@channel@')
       OR NOT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')

-- name: migrate_nodes
-- The names of the nodes that run on this schema; null if there is none.
SELECT string_agg(n.name, ', ' ORDER BY n.name) FROM @schema@.nodes n WHERE n.expires_at > clock_timestamp()

-- name: migrate_jobs
-- How many live jobs there are, counted up to 1000.
SELECT count(*) FROM (SELECT FROM @schema@.jobs LIMIT 1000) j
