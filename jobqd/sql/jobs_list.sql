-- The newest jobs, live and ended, for `jobqd jobs`. The last column is the whole job as JSON. They are chosen first:
-- else each job of the history would be made into JSON.
--   $1 state  $2 queue  $3 kind (each null: any)  $4 how many
SELECT j.id, j.state, j.queue, j.kind, j.attempt || '/' || j.max_attempts AS attempt,
       to_char(coalesce(j.finished_at, CASE WHEN j.state = 'executing' THEN j.attempted_at ELSE j.scheduled_at END)
               AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS at,
       coalesce(j.errors -> -1 ->> 'kind', '') || coalesce(': ' || left(j.errors -> -1 ->> 'error', 70), '')
           AS last_error,
       to_jsonb(j) AS json
  FROM (SELECT *
          FROM @schema@.all_jobs j
         WHERE ($1::text IS NULL OR j.state = $1::@schema@.job_state)
           AND ($2::text IS NULL OR j.queue = $2)
           AND ($3::text IS NULL OR j.kind = $3)
         ORDER BY j.id DESC
         LIMIT $4::bigint) j
 ORDER BY j.id DESC
