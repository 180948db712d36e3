-- How long until the next job is due, in ms; 0: now; -1: none waits for its time.
SELECT coalesce((SELECT greatest(0, ceil(extract(epoch FROM j.scheduled_at - clock_timestamp()) * 1000))
                   FROM @schema@.jobs j
                  WHERE j.position IS NULL AND j.state IN ('scheduled', 'retryable')
                  ORDER BY j.scheduled_at
                  LIMIT 1), -1)::bigint AS in_ms
