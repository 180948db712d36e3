-- `jobqd cron run`.
--   $1 name
SELECT @schema@.cron_run($1)
