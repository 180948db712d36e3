-- The results of each kind, from the tables only.
WITH job AS (
    SELECT * FROM jobq.all_jobs
), mishap AS (
    -- Each entry of errors tells of one attempt.
    SELECT kind, e ->> 'kind'
                 || coalesce(' by ' || (e ->> 'signal'), '')
                 || CASE WHEN e ->> 'kind' = 'error' THEN ' (' || left(e ->> 'error', 40) || ')' ELSE '' END AS what
      FROM job CROSS JOIN jsonb_array_elements(errors) e
), mishaps AS (
    SELECT kind, string_agg(n || ' x ' || what, ', ' ORDER BY what) AS all_of_them
      FROM (SELECT kind, what, count(*) AS n FROM mishap GROUP BY 1, 2) counted
     GROUP BY 1
)
SELECT job.kind, job.queue, count(*) AS jobs,
       count(*) FILTER (WHERE state = 'completed') AS completed,
       count(*) FILTER (WHERE state = 'discarded') AS discarded,
       sum(attempt) AS attempts,
       round((percentile_cont(0.5) WITHIN GROUP (ORDER BY run_us) / 1000.0)::numeric, 1) AS "median ms",
       coalesce(max(mishaps.all_of_them), '') AS "errors on the way"
  FROM job LEFT JOIN mishaps USING (kind)
 GROUP BY job.kind, job.queue
 ORDER BY jobs DESC, job.kind;
