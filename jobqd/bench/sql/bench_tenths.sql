-- How long each tenth of the claims took, in the order of the claims. A claim's jobs share its transaction's time.
WITH tenths AS (
    SELECT f.attempted_at, ntile(10) OVER (ORDER BY f.attempted_at, f.id) AS nth
      FROM @schema@.finished_jobs f
), ends AS (
    SELECT nth, count(*) AS jobs, min(attempted_at) AS first_at, max(attempted_at) AS last_at
      FROM tenths GROUP BY nth
)
SELECT nth, jobs,
       extract(epoch FROM last_at - coalesce(lag(last_at) OVER (ORDER BY nth), first_at)) * 1000 AS ms
  FROM ends ORDER BY nth
