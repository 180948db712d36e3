-- Queues with available jobs that no living node serves, or that somebody has stopped on purpose: paused, or scaled to no
-- workers. The index is walked from queue to queue.
WITH RECURSIVE present (queue) AS (
    (SELECT j.queue FROM @schema@.jobs j WHERE j.position IS NOT NULL ORDER BY j.queue LIMIT 1)
    UNION ALL
    SELECT (SELECT j.queue FROM @schema@.jobs j WHERE j.position IS NOT NULL AND j.queue > p.queue ORDER BY j.queue LIMIT 1)
      FROM present p WHERE p.queue IS NOT NULL
), waiting AS (
    SELECT p.queue
      FROM present p
     WHERE p.queue IS NOT NULL
       AND EXISTS (SELECT FROM @schema@.jobs j
                    WHERE j.queue = p.queue AND j.position IS NOT NULL AND j.state = 'available')
)
SELECT 'fail', format('jobs are waiting in queue %s, which no live node serves', w.queue),
       format('add a [queue %s] section to a node''s configuration, then: jobqd reload --wait', w.queue)
  FROM waiting w
 WHERE NOT EXISTS (SELECT FROM @schema@.nodes n WHERE n.expires_at > clock_timestamp() AND n.queues ? w.queue)
UNION ALL
SELECT 'ok', format('jobs are waiting in queue %s, which has been %s since %s', w.queue, t.what, date_trunc('second', t.updated_at)),
       format(CASE WHEN t.paused THEN 'jobqd resume %s, when they should run' ELSE 'jobqd scale %s default, when they should run' END,
              w.queue)
  FROM waiting w
  JOIN (SELECT q.name AS queue, q.paused, q.updated_at,
               CASE WHEN q.paused THEN 'paused on all nodes' ELSE 'scaled to no workers' END AS what
          FROM @schema@.queues q
         WHERE q.paused OR q.concurrency = 0
        UNION ALL
        SELECT s.queue, s.paused, s.updated_at,
               format(CASE WHEN s.paused THEN 'paused on node %s' ELSE 'scaled to no workers on node %s' END, s.node)
          FROM @schema@.queue_nodes s
         WHERE s.paused OR s.concurrency = 0) t ON t.queue = w.queue
