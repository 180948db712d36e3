-- Looks after sections whose node is gone. How many crons went with them, and which.
SELECT s.removed, s.names FROM @schema@.cron_sweep() s
