-- From the first claim to the last ack, in microseconds.
SELECT (extract(epoch FROM max(f.finished_at) - min(f.attempted_at)) * 1000000)::bigint FROM @schema@.finished_jobs f
