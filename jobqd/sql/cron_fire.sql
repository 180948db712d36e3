-- Enqueues what crons have come. How many jobs; how long until the next one comes, in ms, 0: now, -1: none does.
SELECT f.fired, coalesce(f.next_ms, -1) AS next_ms FROM @schema@._cron_fire() f
