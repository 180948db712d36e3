-- How a node's session begins and ends. session_setup.sql and work_setup.sql are its settings.

-- name: transaction_setup
-- Begins each of our transactions behind a pooler, and each one that BEGIN opens: the settings of session_setup.sql that it
-- needs, until it ends. More settings are appended to this text as further columns (db/pgconn.h), so it is one statement and
-- ends with its last column.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true),
       pg_catalog.set_config('statement_timeout', '0', true),
       CASE WHEN pg_catalog.current_setting('transaction_timeout', true) IS NOT NULL
            THEN pg_catalog.set_config('transaction_timeout', '0', true) END

-- name: version
-- Checks the database before a node registers: the schema's version, whether a transaction sees what was committed while it
-- waited for a lock, and whether the database can hold any text. version() is read and not called, as in migrate_found.sql:
-- foreign.sql may find at the same time that the schema belongs to another role. -1: a jobq from before the first release
-- made the schema; -2: it has no version(); -3: there is no such schema (servers differ in the error that a cast raises).
SELECT CASE WHEN NOT EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = '@channel@') THEN -3
            WHEN EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                          WHERE n.nspname = '@channel@' AND p.proname = 'next_position') THEN -1
            ELSE coalesce((SELECT coalesce(substring(p.prosrc FROM '^[[:space:]]*(?:SELECT|select)[[:space:]]+([0-9]{1,6})[[:space:];]*$')::int, 0)
                             FROM pg_proc p WHERE p.oid = to_regprocedure('@schema@.version()')), -2) END AS version,
       current_setting('transaction_isolation') = 'read committed' AS is_read_committed,
       current_setting('server_encoding') = 'UTF8' AS is_utf8

-- name: session
-- Registers a new work connection of this node. It waits for a claim of the old connection that is still under way; a later
-- claim of it finds no row and claims nothing.
--   $1 node
UPDATE @schema@.nodes SET session = session + 1 WHERE id = $1 AND session >= 0 RETURNING session

-- name: audit
-- Gives back the jobs that this node holds according to the database, but not according to itself. Returns how many, and
-- which ones are locked or refused, for another call. Runs after `session`.
--   $1 node  $2 ids that the node knows it holds  $3 only these jobs, as an earlier call returned them; null: all
SELECT r.released, (SELECT count(*) FROM jsonb_object_keys(r.remaining)) AS remaining, r.remaining::text AS claims
  FROM @schema@._release($1, $2::bigint[], $3::text::jsonb) r

-- name: leave_mark
-- Before a node leaves: waits for its last claim, if one is still under way, and shuts out later ones.
--   $1 node
UPDATE @schema@.nodes SET session = -1 WHERE id = $1
