-- A node's row, and what the node asks for while it runs.

-- name: node_find
-- The node of this name, with the mark of its last renewal and its lease in ms, as in watch.sql.
--   $1 name
SELECT n.id, n.host, n.pid, n.pid_start, (extract(epoch FROM t.renewed_at) * 1000000)::bigint AS mark,
       (extract(epoch FROM t.expires_at - t.renewed_at) * 1000)::bigint AS lease_ms
  FROM @schema@.nodes n
 CROSS JOIN LATERAL (
        @lease_times@) t
 WHERE n.name = $1

-- name: node_insert
-- Registers this node, unless its name is taken.
--   $1 name  $2 host  $3 pid  $4 pid_start  $5 version  $6 lease in ms
INSERT INTO @schema@.nodes (name, host, pid, pid_start, version, renewed_at, expires_at)
SELECT $1, $2, $3, $4, $5, clock.now, clock.now + $6 * interval '1 millisecond'
  FROM (SELECT clock_timestamp() AS now) clock
ON CONFLICT (name) DO NOTHING
RETURNING id

-- name: heartbeat
-- Renews the node's lease. No row comes back if the lifeline has declared the node dead. The clock is read once: it may be
-- set between two readings, and other nodes take the difference for the lease.
--   $1 node  $2 lease in ms  $3 state of its queues
UPDATE @schema@.nodes n
   SET renewed_at = clock.now,
       expires_at = clock.now + $2 * interval '1 millisecond',
       queues = $3
  FROM (SELECT clock_timestamp() AS now) clock
 WHERE n.id = $1 AND n.session >= 0
RETURNING n.id

-- name: node_reloaded
-- Records how far the last reload has come, which file the node reads, and which of its crons the database refuses, for
-- `jobqd reload --wait`.
--   $1 node  $2 state; null: there was no reload, or as recorded before  $3 old processes that still run a job
--   $4 error, a JSON string; null: there is none  $5 file, a JSON string; null: it reads none  $6 crons, likewise
UPDATE @schema@.nodes
   SET reload = CASE WHEN jsonb_typeof(reload) = 'object' THEN reload ELSE '{}' END
             || CASE WHEN $2::text IS NULL THEN '{}'
                     ELSE jsonb_build_object('at', clock_timestamp(), 'state', $2::text, 'leaving', $3::bigint, 'error', $4::text::jsonb) END
             || jsonb_build_object('file', coalesce($5::text::jsonb, 'null'), 'crons', $6::text::jsonb)
 WHERE id = $1
RETURNING id

-- name: node_upgraded
-- Records how the last upgrade in place ended, for `jobqd upgrade`. The new program does not know of a reload that was under
-- way, so `jobqd reload --wait` is told that it failed.
--   $1 node  $2 the version that runs now  $3 error; null: it succeeded
UPDATE @schema@.nodes
   SET version = $2,
       upgrade = jsonb_build_object('at', clock_timestamp(), 'from', version, 'to', $2::text, 'error', $3::text),
       reload = CASE WHEN $3::text IS NULL AND reload ->> 'state' = 'begun'
                     THEN jsonb_build_object('at', clock_timestamp(), 'state', 'failed', 'leaving', 0, 'error',
                                             'interrupted by an upgrade in place: its outcome is unknown')
                     ELSE reload END
 WHERE id = $1
RETURNING id

-- name: node_seen
-- The node of this name: how its last upgrade ended, how far its last reload has come, which file it reads, and which of its
-- crons the database refuses.
--   $1 name
SELECT pid, pid_start, host, version, upgrade ->> 'at', upgrade ->> 'from', upgrade ->> 'error',
       reload ->> 'at', reload ->> 'state', reload ->> 'leaving', reload ->> 'error',
       reload ->> 'file', reload ->> 'crons', reload ? 'file'
  FROM @schema@.nodes
 WHERE name = $1

-- name: cancels
-- The attempts on this node that jobq.cancel() was called for, in order.
--   $1 node
SELECT c.job_id, c.attempt FROM @schema@._cancels c WHERE c.node_id = $1 ORDER BY c.job_id, c.attempt

-- name: progress
-- Records the progress of this node's running attempts in one statement. Attempts that have ended are left out.
--   $1 node  $2 ids  $3 attempts  $4 done, in millionths  $5 notes
SELECT @schema@._note_progress($1, $2::bigint[], $3::int[], $4::bigint[], $5::text[])

-- name: lock_holders
-- The sessions that hold a lock that this node waits for; empty: none any more.
--   $1 node
SELECT coalesce(@schema@._lock_holders($1), '') AS holders
