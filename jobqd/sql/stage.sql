-- The stager: makes due jobs available, the oldest first, a thousand at a time, and wakes who waits for them.
WITH due AS MATERIALIZED (
    SELECT j.id
      FROM @schema@.jobs j
     WHERE j.position IS NULL AND j.scheduled_at <= now() AND j.state IN ('scheduled', 'retryable')
     ORDER BY j.scheduled_at
     LIMIT 1000
       FOR UPDATE SKIP LOCKED
), staged AS (
    UPDATE @schema@.jobs j
       SET state = 'available', position = @schema@.next_position()
      FROM due
     WHERE j.id = due.id
    RETURNING j.queue
)
SELECT count(*) AS staged, @schema@.wake(array_agg(DISTINCT queue)) FROM staged
