-- The leader's housekeeping.

-- name: lead
-- Becomes or stays the leader. Only the leader gets a row back. It is the leader until its lease ends, or until it is found
-- dead: its row is gone, or is marked (session -1) and kept only for jobs that another session has locked.
--   $1 node  $2 lease in ms
INSERT INTO @schema@._leader AS l (singleton, node_id, expires_at)
VALUES (true, $1, clock_timestamp() + $2 * interval '1 millisecond')
ON CONFLICT (singleton) DO UPDATE
   SET node_id = excluded.node_id, expires_at = excluded.expires_at
 WHERE l.node_id = excluded.node_id OR l.expires_at < clock_timestamp()
    OR NOT EXISTS (SELECT FROM @schema@.nodes n WHERE n.id = l.node_id AND n.session >= 0)
RETURNING l.node_id AS id

-- name: stage
-- The stager: makes due jobs available. Returns how many, and the time until the next one is due in ms; 0: now, -1: none
-- waits.
SELECT s.staged, s.in_ms AS next_ms FROM @schema@._stage() s

-- name: expire
-- Cancels jobs that have not begun by their expires_at. Returns how many it found (with 1000 there may be more), and what to
-- report of them.
--   $1 only those that expired in the last this many ms; -1: all
SELECT e.found_now AS expired, coalesce(e.stories::text, '') AS stories
  FROM @schema@._expire(CASE WHEN $1::bigint >= 0 THEN now() - $1 * interval '1 millisecond' ELSE '-infinity' END) e

-- name: reap
-- The lifeline, second step: removes the nodes that reap_mark.sql marked, and gives their jobs back. Returns how many nodes
-- were removed; how many jobs are available again, ended, or left; the first node's name, or what keeps the first job;
-- what to report of the jobs.
SELECT r.removed, r.again, r.ended, r.remaining, coalesce(r.note, r.name, '') AS note, coalesce(r.stories::text, '') AS stories
  FROM @schema@._rescue() r

-- name: strays
-- Gives nodes that hold jobs but have lost their row a row again, for the lifeline. Returns how many.
--   $1 lease in ms
SELECT @schema@._strays($1) AS strays

-- name: cancel_again
-- The leader's sweep: carries out requests to cancel that no running attempt will answer, deletes the progress of attempts
-- that have ended, and records ends of attempts that the database refused before, where it accepts them now. Returns how
-- many jobs were cancelled, and what to report of the attempts that were recorded.
SELECT s.cancelled, coalesce(s.stories::text, '') AS stories FROM @schema@._sweep() s

-- name: partitions_create
-- Creates the history's partitions of today and the next days.
SELECT @schema@._create_partitions((now() AT TIME ZONE 'UTC')::date, 4) AS created

-- name: partitions_drop
-- Drops one partition that has been kept long enough. Returns whether more are left to drop: 1, or -1 for one that is locked
-- now.
--   $1 how long completed jobs are kept, in ms  $2 the same for cancelled and discarded ones
SELECT @schema@._drop_partitions($1 * interval '1 millisecond', $2 * interval '1 millisecond') AS more

-- name: prune
-- Deletes from some pages of the history what the leader's configuration and the live nodes' queues do not keep. Returns 1
-- if there is more to do.
--   $1 how long cancelled jobs are kept, in ms  $2 the same for discarded ones (each null: until their day is dropped)
--   $3 how many pages
SELECT @schema@._prune_history(jsonb_strip_nulls(jsonb_build_object('cancelled_ms', $1::bigint, 'discarded_ms', $2::bigint,
                                                                   'queues', @schema@._queues_retention())), $3::int) AS more

-- name: prune_uniques
-- Deletes a batch of keys of unique jobs that are gone. Returns how many, and where to continue; null: at the start.
--   $1 where to continue
SELECT p.pruned, p.after FROM @schema@._prune_uniques($1) p
