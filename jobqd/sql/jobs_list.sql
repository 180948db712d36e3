-- The newest jobs, live and ended, for `jobqd jobs`. The last column is the whole job as JSON, if that is wanted; a value
-- that is too long to show is replaced by a text with its size. They are chosen first: else each job of the history
-- would be made into JSON.
--   $1 queue  $2 kind  $3 states, separated by commas  $4 tags, likewise  $5 key  $6 args  $7 inserted before
--   $8 inserted so many ms ago  $9 how many (each of these null: any)  $10 whether JSON is wanted
SELECT j.id, j.state, j.queue, j.kind, j.attempt || '/' || j.max_attempts AS attempt,
       to_char(coalesce(j.finished_at, CASE WHEN j.state = 'executing' THEN j.attempted_at ELSE j.scheduled_at END)
               AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS at,
       coalesce(left(j.errors -> -1 ->> 'kind', 20), '') || coalesce(': ' || left(j.errors -> -1 ->> 'error', 70), '')
           AS last_error,
       w.json
  FROM (SELECT *
          FROM @schema@.all_jobs j
         WHERE ($1::text IS NULL OR j.queue = $1)
           AND ($2::text IS NULL OR j.kind = $2)
           AND ($3::text IS NULL OR j.state = ANY (string_to_array($3, ',')::@schema@.job_state[]))
           AND ($4::text IS NULL OR j.tags @> string_to_array($4, ','))
           AND ($5::text IS NULL OR j.key = $5)
           AND ($6::jsonb IS NULL OR j.args @> $6)
           AND ($7::timestamptz IS NULL OR j.inserted_at < $7)
           AND ($8::bigint IS NULL OR j.inserted_at < now() - $8 * interval '1 millisecond')
         ORDER BY j.id DESC
         LIMIT $9::bigint) j
  LEFT JOIN LATERAL (
        SELECT to_jsonb(x) AS json
          FROM (SELECT j.id, j.state, j.queue, j.kind, @schema@._readable(j.args) AS args, @schema@._readable(j.meta) AS meta,
                       j.tags, j.priority, j.position, j.attempt, j.max_attempts, @schema@._readable(j.errors) AS errors, j.key,
                       j.unique_key, j.timeout_ms, @schema@._utc(j.inserted_at) AS inserted_at,
                       @schema@._utc(j.scheduled_at) AS scheduled_at, @schema@._utc(j.attempted_at) AS attempted_at, j.attempted_by,
                       @schema@._utc(j.finished_at) AS finished_at, @schema@._readable(j.result) AS result, j.run_us, j.cpu_us, j.max_rss_kb,
                       @schema@._utc(j.expires_at) AS expires_at,
                       @schema@._readable(j.progress) AS progress) x
         WHERE $10::boolean) w ON true
 ORDER BY j.id DESC
