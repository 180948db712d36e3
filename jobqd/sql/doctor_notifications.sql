-- How full the server's queue of notifications is: a session that listens and does not end its transaction keeps it.
WITH u AS (SELECT pg_notification_queue_usage() AS usage)
SELECT CASE WHEN usage >= 0.9 THEN 'fail' WHEN usage >= 0.1 THEN 'warn' ELSE 'ok' END,
       format('the queue of notifications is %s %% full', round((usage * 100)::numeric, 1)),
       CASE WHEN usage >= 0.1 THEN 'when it is full every NOTIFY fails, and the insert with it: end the session that listens '
                                   'in a transaction (the server''s log names its pid)' END
  FROM u
