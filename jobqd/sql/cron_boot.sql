-- This node has come up. How many @reboot jobs were enqueued: they are if it is the first one. How many could not be yet, for
-- which it is asked again.
--   $1 node  $2 whether its process has just started
SELECT b.fired, b.remaining FROM @schema@._cron_boot($1, $2) b
