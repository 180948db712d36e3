-- The small statements of bench.

-- name: bench_preload
-- A backlog in one statement.
--   $1 how many
INSERT INTO @schema@.jobs (queue, kind, args, max_attempts)
SELECT 'bench', 'noop', jsonb_build_object('n', n), 20 FROM generate_series(1, $1::bigint) n

-- name: bench_insert
-- One job by a plain INSERT.
--   $1 args
INSERT INTO @schema@.jobs (queue, kind, args) VALUES ('bench', 'noop', $1::jsonb)

-- name: bench_enqueue
-- One job by the function that any language calls.
--   $1 args
SELECT @schema@.enqueue('noop', $1::jsonb, queue => 'bench')

-- name: bench_enqueue_many
-- Many jobs by the function that any language calls.
--   $1 a JSON array
SELECT count(*) FROM @schema@.enqueue_many($1::jsonb)

-- name: bench_backend
-- The server process that a jobqd's work connection talks to.
SELECT a.pid FROM pg_stat_activity a
 WHERE a.application_name = 'jobqd work' AND a.datname = current_database()
 ORDER BY a.backend_start DESC LIMIT 1

-- name: bench_updates
-- How often rows of the live table were updated, and how often without touching an index (HOT).
SELECT pg_stat_get_tuples_updated(c.oid), pg_stat_get_tuples_hot_updated(c.oid)
  FROM pg_class c
 WHERE c.oid = '@schema@.jobs'::regclass

-- name: bench_left
-- Whether a job is left after a position near the end of the line: this reads few index entries, whatever the table holds.
--   $1 position
SELECT EXISTS (SELECT FROM @schema@.jobs j WHERE j.queue = 'bench' AND j.priority = 0 AND j.position > $1::bigint)::int

-- name: bench_span
-- From the first claim to the last ack, in microseconds.
SELECT (extract(epoch FROM max(f.finished_at) - min(f.attempted_at)) * 1000000)::bigint FROM @schema@.finished_jobs f

-- name: bench_node
-- Registers a node that is no jobqd, to claim for. Its id is also left in a setting of the transaction.
WITH node AS (
    INSERT INTO @schema@.nodes (name, host, pid, pid_start, version, expires_at)
    VALUES ('bench', '-', 0, 0, '-', 'infinity')
    RETURNING id
)
SELECT node.id, set_config('jobq_bench.node', node.id::text, true) FROM node

-- name: bench_explain
-- What the claim does, with the plan that the work connection would use. The node's id comes through a setting because
-- EXECUTE takes no parameters of an outer statement.
EXPLAIN (ANALYZE, BUFFERS) EXECUTE claim_512 ('bench', array_fill(0::bigint, ARRAY[10]),
    current_setting('jobq_bench.node')::bigint, 0)

-- name: bench_bare_table
-- A table as wide as the live one that no node looks at: the yardstick of bench latency.
CREATE TABLE @schema@.bench_bare (LIKE @schema@.jobs INCLUDING ALL) WITH (fillfactor = 50)

-- name: bench_bare_insert
-- Inserts one row of the yardstick.
--   $1 args
INSERT INTO @schema@.bench_bare (queue, kind, args, position, max_attempts) VALUES ('bench', 'noop', $1::jsonb, 1, 20) RETURNING id

-- name: bench_bare_claim
-- Changes what a claim changes of one row, and does nothing else of a claim.
--   $1 id
UPDATE @schema@.bench_bare
   SET state = 'executing', attempt = attempt + 1, attempted_at = now(), attempted_by = 1
 WHERE id = $1

-- name: bench_bare_delete
-- Deletes that row.
--   $1 id
DELETE FROM @schema@.bench_bare WHERE id = $1
