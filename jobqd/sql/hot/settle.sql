-- Every other end of an attempt.

-- name: settle
-- Settles attempts that ended in any other way than a plain ok. Returns a row for each: its id; its fate: accepted, refused
-- (the attempt no longer holds the job) or locked (try again later); of an accepted one, the job's state, when it is tried
-- again, and whether a hook enqueued it. See _settle in migrations/schema/settle.sql.
--   $1 ids  $2 attempts  $3 outcomes: completed, failed, crashed, discarded, cancelled, snoozed, released
--   $4 delays in ms  $5 error entries  $6 results  $7 run_us  $8 cpu_us  $9 max_rss_kb
--   $10 node  $11 max_crashes (0: no limit)  $12 whether completed jobs are kept
SELECT s.id, s.fate, NULL::text AS message, s.became, (extract(epoch FROM s.due) * 1000)::bigint AS due_ms, s.hooks
  FROM @schema@._settle($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) s

-- name: settle_apart
-- Settles at most 50 attempts one by one, after the database refused some of them together. The parameters are those of
-- `settle`. It also returns the fates stripped, parked and stuck, and the error of the database, or who holds the lock.
SELECT s.id, s.fate, s.message, s.became, (extract(epoch FROM s.due) * 1000)::bigint AS due_ms, s.hooks
  FROM @schema@._settle_apart($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) s
