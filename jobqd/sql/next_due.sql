-- How long until the next job is due, in ms; no row when none waits for its time.
SELECT ceil(extract(epoch FROM j.scheduled_at - clock_timestamp()) * 1000)::bigint AS in_ms
  FROM @schema@.jobs j
 WHERE j.position IS NULL AND j.state IN ('scheduled', 'retryable')
 ORDER BY j.scheduled_at
 LIMIT 1
