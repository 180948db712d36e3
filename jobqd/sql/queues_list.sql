-- Every queue that holds a job, that a node serves or that somebody has paused or scaled: its jobs by state, its
-- workers over all living nodes, what was set for it. The three columns before the last count the history, where $1
-- asks for it; the last is the queue as JSON.
--   $1 whether to count the history
WITH live AS (
    SELECT j.queue,
           count(*) FILTER (WHERE j.state = 'available') AS available,
           count(*) FILTER (WHERE j.state = 'executing') AS executing,
           count(*) FILTER (WHERE j.state = 'scheduled') AS scheduled,
           count(*) FILTER (WHERE j.state = 'retryable') AS retryable,
           count(*) FILTER (WHERE j.state = 'suspended') AS suspended
      FROM @schema@.jobs j
     GROUP BY j.queue
), ended AS (
    SELECT j.queue,
           count(*) FILTER (WHERE j.state = 'completed') AS completed,
           count(*) FILTER (WHERE j.state = 'cancelled') AS cancelled,
           count(*) FILTER (WHERE j.state = 'discarded') AS discarded
      FROM @schema@.finished_jobs j
     WHERE $1::boolean
     GROUP BY j.queue
), served AS (
    SELECT s.key AS queue, count(*) AS nodes,
           sum((t.said -> 'wanted')::int) AS wanted, sum((t.said -> 'ready')::int) AS ready,
           sum((t.said -> 'busy')::int) AS busy, sum((t.said -> 'restarts')::bigint) AS restarts,
           sum((t.said -> 'crashes')::bigint) AS crashes,
           max((t.said -> 'backoff_ms')::bigint) FILTER (WHERE (t.said -> 'backing_off')::boolean) AS backoff_ms,
           jsonb_object_agg(n.name, s.value) AS by_node
      FROM @schema@.nodes n
     CROSS JOIN LATERAL jsonb_each(CASE WHEN jsonb_typeof(n.queues) = 'object' THEN n.queues ELSE '{}' END) s
     CROSS JOIN LATERAL (
            SELECT coalesce(jsonb_object_agg(m.key, m.value), '{}') AS said
              FROM jsonb_each(CASE WHEN jsonb_typeof(s.value) = 'object' THEN s.value ELSE '{}' END) m
             WHERE jsonb_typeof(m.value) = CASE m.key WHEN 'backing_off' THEN 'boolean' ELSE 'number' END) t
     WHERE n.expires_at > clock_timestamp()
     GROUP BY s.key
), on_nodes AS (
    SELECT n.queue, coalesce(jsonb_agg(n.node ORDER BY n.node) FILTER (WHERE n.paused), '[]') AS paused,
           string_agg(n.node, ', ' ORDER BY n.node) FILTER (WHERE n.paused) AS paused_text,
           coalesce(jsonb_object_agg(n.node, n.concurrency) FILTER (WHERE n.concurrency IS NOT NULL), '{}') AS scale,
           string_agg(n.node || ': ' || n.concurrency, ', ' ORDER BY n.node) AS scale_text
      FROM @schema@.queue_nodes n
     GROUP BY n.queue
), set AS (
    SELECT coalesce(q.name, n.queue) AS queue, coalesce(q.paused, false) AS paused, q.concurrency,
           coalesce(n.paused, '[]') AS paused_nodes, coalesce(n.scale, '{}') AS scale_nodes,
           CASE WHEN q.paused THEN 'all' ELSE coalesce(n.paused_text, '') END AS paused_text,
           coalesce(concat_ws(', ', q.concurrency::text, n.scale_text), '') AS scale_text
      FROM (SELECT * FROM @schema@.queues WHERE paused OR concurrency IS NOT NULL) q
      FULL JOIN on_nodes n ON n.queue = q.name
), named AS (
    SELECT queue FROM live UNION SELECT queue FROM ended UNION SELECT queue FROM served UNION SELECT queue FROM set
)
SELECT q.queue, coalesce(s.nodes, 0) AS nodes, coalesce(s.ready || '/' || s.wanted, '-') AS workers,
       coalesce(s.busy, 0) AS busy, coalesce(s.restarts, 0) AS restarts, coalesce(s.crashes, 0) AS crashes,
       coalesce('backs off, ' || round(s.backoff_ms / 1000.0, 1) || ' s', '') AS backoff,
       coalesce(t.paused_text, '') AS paused, coalesce(t.scale_text, '') AS scale,
       coalesce(l.available, 0) AS available, coalesce(l.executing, 0) AS executing,
       coalesce(l.scheduled, 0) AS scheduled, coalesce(l.retryable, 0) AS retryable,
       coalesce(l.suspended, 0) AS suspended,
       coalesce(e.completed, 0) AS completed, coalesce(e.cancelled, 0) AS cancelled,
       coalesce(e.discarded, 0) AS discarded,
       jsonb_build_object('queue', q.queue, 'nodes', coalesce(s.by_node, '{}'),
           'paused', coalesce(t.paused, false), 'paused_nodes', coalesce(t.paused_nodes, '[]'),
           'max_attempts', coalesce(a.max_attempts, 20), 'scale', t.concurrency, 'scale_nodes', coalesce(t.scale_nodes, '{}'),
           'workers', jsonb_build_object('wanted', coalesce(s.wanted, 0), 'ready', coalesce(s.ready, 0),
               'busy', coalesce(s.busy, 0), 'restarts', coalesce(s.restarts, 0), 'crashes', coalesce(s.crashes, 0),
               'backing_off', s.backoff_ms IS NOT NULL, 'backoff_ms', coalesce(s.backoff_ms, 0)),
           'states', jsonb_build_object('available', coalesce(l.available, 0),
               'executing', coalesce(l.executing, 0), 'scheduled', coalesce(l.scheduled, 0),
               'retryable', coalesce(l.retryable, 0), 'suspended', coalesce(l.suspended, 0))
           || CASE WHEN $1::boolean
                   THEN jsonb_build_object('completed', coalesce(e.completed, 0),
                       'cancelled', coalesce(e.cancelled, 0), 'discarded', coalesce(e.discarded, 0))
                   ELSE '{}' END) AS json
  FROM named q
  LEFT JOIN live l USING (queue)
  LEFT JOIN ended e USING (queue)
  LEFT JOIN served s USING (queue)
  LEFT JOIN set t USING (queue)
  LEFT JOIN @schema@.queues a ON a.name = q.queue
 ORDER BY q.queue
