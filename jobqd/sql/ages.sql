-- For how long the first waiting job of each priority has waited, since it was inserted or due: pairs of its position
-- and milliseconds, in the order of positions.
--   $1 queue
SELECT coalesce(string_agg(format('%s %s', head.position, greatest(0, head.age_ms)), ' ' ORDER BY head.position), '') AS ages
  FROM generate_series(0, 9) AS line (priority)
 CROSS JOIN LATERAL (
        SELECT j.position, (extract(epoch FROM clock_timestamp() - greatest(j.inserted_at, j.scheduled_at)) * 1000)::bigint AS age_ms
          FROM @schema@.jobs j
         WHERE j.queue = $1 AND j.priority = line.priority::smallint AND j.position > 0 AND j.state = 'available' AND isfinite(j.scheduled_at)
         ORDER BY j.position
         LIMIT 1) head
