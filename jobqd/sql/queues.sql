-- The queues of a node, and the commands for them.

-- name: queues_declare
-- Declares the max_attempts of this node's queues. Returns for how many queues it changed, and how many rows another session
-- has locked.
--   $1 node's name  $2 an object of its queues, with a number or null
SELECT d.changed AS queues_changed, d.busy AS queues_locked FROM @schema@._queue_declare($1, $2) d

-- name: hooks_declare
-- Declares the on_discard_kind of this node's queues. Returns for how many queues it changed.
--   $1 node's name  $2 an array of {queue, kind, to_queue} for each queue that it serves
SELECT @schema@._hooks_declare($1, $2) AS queues_changed

-- name: settings
-- What jobq.pause() and jobq.scale() have set for this node's queues: one row for each queue, in any order. Each row also says
-- how far positions have been given out, and so by when they were (pure/ageing.h).
--   $1 the node's name  $2 queues
SELECT asked.queue, coalesce(q.paused, false) OR coalesce(n.paused, false) AS paused,
       coalesce(n.concurrency, q.concurrency) AS concurrency,
       (SELECT s.last_value - (NOT s.is_called)::int FROM @schema@.jobs_position_seq s) AS position
  FROM unnest($2::text[]) AS asked (queue)
  LEFT JOIN @schema@.queues q ON q.name = asked.queue
  LEFT JOIN @schema@.queue_nodes n ON n.queue = asked.queue AND n.node = $1

-- name: ages
-- How long the first waiting job of each priority has waited since it was inserted or due, in ms, in the order of positions.
--   $1 queue
SELECT head.position, greatest(0, head.age_ms) AS age_ms
  FROM generate_series(0, 9) AS line (priority)
 CROSS JOIN LATERAL (
        SELECT j.position, (extract(epoch FROM clock_timestamp() - greatest(j.inserted_at, j.scheduled_at)) * 1000)::bigint AS age_ms
          FROM @schema@.jobs j
         WHERE j.queue = $1 AND j.priority = line.priority::smallint AND j.position > 0 AND j.state = 'available' AND isfinite(j.scheduled_at)
         ORDER BY j.position
         LIMIT 1) head
 ORDER BY head.position

-- name: idle_set
-- From now on an insert into this queue wakes this node. Not if the lifeline has removed the node: the mark would stay for
-- ever.
--   $1 queue  $2 node
INSERT INTO @schema@._idle (queue, node_id)
SELECT $1, n.id FROM @schema@.nodes n WHERE n.id = $2 FOR KEY SHARE
    ON CONFLICT DO NOTHING

-- name: idle_clear
-- The node looks by itself from now on: no insert needs to wake it.
--   $1 queue  $2 node
DELETE FROM @schema@._idle WHERE queue = $1 AND node_id = $2

-- name: queue_pause
-- Pauses a queue. Returns whether that changed anything, and whether a live node serves the queue (the one that is named).
--   $1 queue  $2 the node's name, or null for all
SELECT p.changed, @served@
  FROM @schema@.pause($1::text, $2::text) p (changed)

-- name: queue_resume
-- Resumes a queue. Returns the same.
--   $1 queue  $2 the node's name, or null for all
SELECT p.changed, @served@
  FROM @schema@.resume($1::text, $2::text) p (changed)

-- name: queue_scale
-- Scales a queue. Returns the same.
--   $1 queue  $2 the node's name, or null for all  $3 how many workers, or null for the configured number
SELECT p.changed, @served@
  FROM @schema@.scale($1::text, $3::int, $2::text) p (changed)
