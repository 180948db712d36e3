-- `jobqd cron delete`.
--   $1 name
SELECT @schema@.cron_delete($1)
