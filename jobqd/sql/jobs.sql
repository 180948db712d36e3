-- The commands for jobs.

-- name: job_enqueue
-- `jobqd enqueue`: what is not given has the default of enqueue(). The second column says whether the job existed already.
--   $1 kind  $2 args  $3 queue  $4 priority  $5 time  $6 delay in ms  $7 max_attempts  $8 key  $9 unique_key
--   $10 tags, separated by commas  $11 meta  $12 timeout in ms  $13 unique_by  $14 on_conflict  $15 replace
--   $16 expires_at  $17 the same as a delay in ms
SELECT e.id, CASE e.conflict WHEN 'ignored' THEN 'existing' ELSE e.conflict END
  FROM @schema@.try_enqueue($1, coalesce($2::jsonb, '{}'), queue => coalesce($3, 'default'),
           priority => coalesce($4::int, 0),
           scheduled_at => coalesce($5::timestamptz, now() + $6::bigint * interval '1 millisecond'),
           max_attempts => $7::int, key => $8, unique_key => $9,
           tags => coalesce(string_to_array($10, ','), '{}'), meta => coalesce($11::jsonb, '{}'),
           timeout_ms => $12::int, unique_by => $13::jsonb, on_conflict => coalesce($14, 'ignore'),
           "replace" => $15::jsonb,
           expires_at => coalesce($16::timestamptz, now() + $17::bigint * interval '1 millisecond')) e

-- name: job_enqueue_many
-- `jobqd enqueue -`: a batch of lines.
--   $1 a JSON array
SELECT e.id, CASE e.conflict WHEN 'ignored' THEN 'existing' ELSE e.conflict END
  FROM @schema@.try_enqueue_many($1::jsonb) e

-- name: job_states
-- The names of the states, and whether all of these are among them.
--   $1 states, separated by commas
SELECT string_agg(s.state::text, ', '), string_to_array($1, ',') <@ array_agg(s.state::text)
  FROM unnest(enum_range(NULL::@schema@.job_state)) s (state)

-- name: steer_begin
-- Begins the transaction of a command that changes jobs. What the commit would refuse is refused at its row, so that the
-- command can go on with the other jobs. It waits for a locked row for lock_timeout, or for 10 s where that is not set.
-- Returns this time, for people.
SET CONSTRAINTS ALL IMMEDIATE;
SELECT regexp_replace(set_config('lock_timeout', CASE current_setting('lock_timeout') WHEN '0' THEN '10s'
                                                 ELSE current_setting('lock_timeout') END, true),
                      '^([0-9]+)', E'\\1 ')

-- name: job_cancel
-- Cancels a job. Returns whether that ended it, and its state; executing: its node is asked to stop it.
--   $1 id
SELECT c.done, (SELECT j.state FROM @schema@.all_jobs j WHERE j.id = $1::bigint) FROM @schema@.cancel($1::bigint) c (done)

-- name: job_retry
-- Makes a job available again. Returns whether it did, and the job's state.
--   $1 id
SELECT r.done, (SELECT j.state FROM @schema@.all_jobs j WHERE j.id = $1::bigint) FROM @schema@.retry($1::bigint) r (done)

-- name: job_delete
-- Deletes a job. Returns whether it did, and the job's state; executing: its node is asked to stop it, another state: the
-- database refuses.
--   $1 id
SELECT d.done, coalesce((SELECT j.state::text FROM @schema@.jobs j WHERE j.id = $1::bigint), 'executing')
  FROM @schema@.delete($1::bigint) d (done)

-- name: jobs_purge
-- Deletes the jobs whose args contain these. Returns how many.
--   $1 args  $2 kind  $3 queue (each null: any)
SELECT @schema@.purge($1::jsonb, $2, $3)

-- name: steer_end
-- Ends that transaction: nothing is left of a job that was refused.
COMMIT
