-- Periodic jobs: what nodes do, then the commands. cron_list.sql is the list.

-- name: cron_declare
-- Declares the crons of this node's configuration. Returns how many rows changed, how many another session has locked, and
-- what was refused.
--   $1 the node's name  $2 the sections, an object by name
SELECT d.changed AS crons_changed, d.busy AS crons_locked, d.fault FROM @schema@._cron_declare($1, $2) d

-- name: cron_boot
-- Enqueues the @reboot jobs, if this node is the first to come up. Returns how many were enqueued, and how many could not be
-- enqueued yet: the node asks again for those.
--   $1 node  $2 whether its process has just started
SELECT b.fired, b.remaining FROM @schema@._cron_boot($1, $2) b

-- name: cron_fire
-- Enqueues the jobs of the crons that are due. Returns how many, and the time until the next one is due in ms; 0: now,
-- -1: none will be.
SELECT f.fired, coalesce(f.next_ms, -1) AS next_ms FROM @schema@._cron_fire() f

-- name: cron_sweep
-- Deletes what the configurations of nodes declared that are gone. Returns how many crons were deleted, and their names.
SELECT s.removed, s.names FROM @schema@._cron_sweep() s, @schema@._declared_sweep() d

-- name: cron_set
-- `jobqd cron set`: what is not given has the default of cron_set().
--   $1 name  $2 schedule  $3 kind  $4 args  $5 timezone  $6 queue  $7 priority  $8 max_attempts  $9 missed  $10 meta
--   $11 tags, separated by commas  $12 timeout in ms  $13 overlap  $14 expires in ms  $15 unique_by
SELECT @schema@.cron_set($1, $2, $3, coalesce($4::jsonb, '{}'), coalesce($5, 'UTC'), coalesce($6, 'default'),
           coalesce($7::int, 0), $8::int, coalesce($9, 'once'), coalesce($10::jsonb, '{}'),
           coalesce(string_to_array($11, ','), '{}'), $12::int,
           coalesce($13, 'allow'), $14::bigint * interval '1 millisecond', $15::jsonb)

-- name: cron_run
-- `jobqd cron run`.
--   $1 name
SELECT @schema@.cron_run($1)

-- name: cron_pause
-- `jobqd cron pause`: true if the cron was not paused before.
--   $1 name
SELECT @schema@.cron_pause($1)

-- name: cron_resume
-- `jobqd cron resume`: true if the cron was paused before.
--   $1 name
SELECT @schema@.cron_resume($1)

-- name: cron_delete
-- `jobqd cron delete`.
--   $1 name
SELECT @schema@.cron_delete($1)
