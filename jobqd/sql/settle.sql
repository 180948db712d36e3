-- Settles attempts that ended in any other way than a plain ok. One row for each: its id; what became of it: accepted,
-- refused (not this attempt's any more) or locked (try again later); of an accepted one the
-- job's state, when it is tried again, and whether it is a hook's. See _settle in migrations/schema/settle.sql.
--   $1 ids  $2 attempts  $3 outcomes: completed, failed, crashed, discarded, cancelled, snoozed, released
--   $4 delays in ms  $5 error entries  $6 results  $7 run_us  $8 cpu_us  $9 max_rss_kb
--   $10 node  $11 max_crashes (0: no limit)  $12 whether completed jobs are kept
SELECT s.id, s.fate, NULL::text AS message, s.became, (extract(epoch FROM s.due) * 1000)::bigint AS due_ms, s.hooks
  FROM @schema@._settle($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) s
