-- One job for `jobqd job`: its facts as lines (label, text), and the whole of it as JSON in the first. A value that is
-- too long to show is replaced by a text with its size.
--   $1 id
WITH job AS MATERIALIZED (
    SELECT j.id, j.state, j.queue, j.kind, @schema@._readable(j.args) AS args, @schema@._readable(j.meta) AS meta, j.tags,
           j.priority, j.position, j.attempt, j.max_attempts, @schema@._readable(j.errors) AS errors, j.key, j.unique_key,
           j.timeout_ms, j.inserted_at, j.scheduled_at, j.attempted_at, j.attempted_by, j.finished_at,
           @schema@._readable(j.result) AS result, j.run_us, j.cpu_us, j.max_rss_kb, j.expires_at,
           @schema@._readable(j.progress) AS progress
      FROM @schema@.all_jobs j
     WHERE j.id = $1::bigint
)
SELECT f.label, f.text, CASE f.nth WHEN 1 THEN to_jsonb(j) || jsonb_build_object(
           'inserted_at', @schema@._utc(j.inserted_at), 'scheduled_at', @schema@._utc(j.scheduled_at),
           'attempted_at', @schema@._utc(j.attempted_at), 'finished_at', @schema@._utc(j.finished_at),
           'expires_at', @schema@._utc(j.expires_at)) END AS json
  FROM job j
 CROSS JOIN LATERAL (VALUES
        (1, 'state', j.state::text),
        (2, 'kind', j.kind),
        (3, 'queue', j.queue),
        (4, 'priority', j.priority::text),
        (5, 'attempt', j.attempt || ' of ' || j.max_attempts),
        (6, 'args', j.args::text),
        (7, 'meta', nullif(j.meta::text, '{}')),
        (8, 'tags', nullif(array_to_string(j.tags, ', '), '')),
        (9, 'key', j.key),
        (10, 'unique key', j.unique_key),
        (11, 'timeout', j.timeout_ms || ' ms'),
        (12, 'inserted', @schema@._ago(j.inserted_at)),
        (13, CASE WHEN j.state IN ('scheduled', 'retryable') THEN 'due' ELSE 'scheduled' END, @schema@._ago(j.scheduled_at)),
        (14, 'expires', @schema@._ago(j.expires_at)),
        (15, 'attempted', @schema@._ago(j.attempted_at)),
        (16, 'node', (SELECT n.name FROM @schema@.nodes n WHERE n.id = j.attempted_by)),
        (17, 'cancel', (SELECT 'asked for at ' || @schema@._ago(min(c.requested_at)) FROM @schema@._cancels c
                         WHERE c.job_id = j.id AND j.state = 'executing')),
        (18, 'progress', round((j.progress ->> 'done')::numeric * 100, 1) || ' %' || coalesce(': ' || (j.progress ->> 'note'), '')),
        (19, 'finished', @schema@._ago(j.finished_at)),
        (20, 'result', j.result::text),
        (21, 'ran', round(j.run_us / 1000.0, 3) || ' ms'),
        (22, 'cpu', round(j.cpu_us / 1000.0, 3) || ' ms'),
        (23, 'memory', j.max_rss_kb || ' KiB')) f (nth, label, text)
 WHERE f.text IS NOT NULL
 ORDER BY f.nth
