-- One job for `jobqd job`: its facts as lines (label, text), and the whole of it as JSON in each.
--   $1 id
SELECT f.label, f.text, to_jsonb(j) AS json
  FROM @schema@.all_jobs j
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
        (12, 'inserted', j.inserted_at::text),
        (13, CASE WHEN j.state IN ('scheduled', 'retryable') THEN 'due' ELSE 'scheduled' END, j.scheduled_at::text),
        (14, 'expires', j.expires_at::text),
        (15, 'attempted', j.attempted_at::text),
        (16, 'node', (SELECT n.name FROM @schema@.nodes n WHERE n.id = j.attempted_by)),
        (17, 'cancel', (SELECT 'asked for at ' || min(c.requested_at) FROM @schema@.cancels c
                         WHERE c.job_id = j.id AND j.state = 'executing')),
        (18, 'progress', round((j.progress ->> 'done')::numeric * 100, 1) || ' %' || coalesce(': ' || (j.progress ->> 'note'), '')),
        (19, 'finished', j.finished_at::text),
        (20, 'result', j.result::text),
        (21, 'ran', round(j.run_us / 1000.0, 3) || ' ms'),
        (22, 'cpu', round(j.cpu_us / 1000.0, 3) || ' ms'),
        (23, 'memory', j.max_rss_kb || ' KiB')) f (nth, label, text)
 WHERE j.id = $1::bigint AND f.text IS NOT NULL
 ORDER BY f.nth
