-- Looks after what the configurations of nodes said that are gone. How many crons went with them, and which.
SELECT s.removed, s.names FROM @schema@._cron_sweep() s, @schema@._declared_sweep() d
