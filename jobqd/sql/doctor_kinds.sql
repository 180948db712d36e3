-- Kinds of which jobs wait, among the first 200,000, and that the workers of no node that serves their queue handle. A queue of
-- which some node does not know its workers' kinds (they take all, or none has come up) is left out.
WITH served AS (
    SELECT q.key AS queue, bool_and(jsonb_typeof(q.value -> 'kinds') IS NOT DISTINCT FROM 'array') AS known,
           jsonb_agg(q.value -> 'kinds') AS kinds
      FROM @schema@.nodes n
     CROSS JOIN LATERAL jsonb_each(CASE WHEN jsonb_typeof(n.queues) = 'object' THEN n.queues ELSE '{}' END) q
     WHERE n.expires_at > clock_timestamp()
     GROUP BY q.key
), waiting AS (
    SELECT w.queue, w.kind, count(*) AS n
      FROM (SELECT j.queue, j.kind FROM @schema@.jobs j WHERE j.state IN ('available', 'retryable') LIMIT 200000) w
     GROUP BY w.queue, w.kind
)
SELECT 'fail',
       format('no worker of queue %s handles kind %s: %s %s', w.queue, w.kind, w.n,
              CASE w.n WHEN 1 THEN 'job waits' ELSE 'jobs wait' END),
       format('register a handler for it in the worker of [queue %s], or enqueue these jobs into a queue whose worker has one',
              w.queue)
  FROM waiting w
  JOIN served s ON s.queue = w.queue
 WHERE s.known AND NOT EXISTS (SELECT FROM jsonb_array_elements(s.kinds) of_node WHERE of_node ? w.kind)
 ORDER BY w.n DESC, w.queue, w.kind
 LIMIT 20
