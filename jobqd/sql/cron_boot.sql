-- This node has come up. How many @reboot jobs were enqueued: they are if it is the first one. -1: ask again.
--   $1 node  $2 whether its process has just started
SELECT coalesce(@schema@.cron_boot($1, $2), -1) AS fired
