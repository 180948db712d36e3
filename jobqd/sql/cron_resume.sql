-- `jobqd cron resume`: true when it changed.
--   $1 name
SELECT @schema@.cron_resume($1)
