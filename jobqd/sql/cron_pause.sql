-- `jobqd cron pause`: true when it changed.
--   $1 name
SELECT @schema@.cron_pause($1)
