-- Queues with available jobs that no living node serves. The index is walked from queue to queue.
WITH RECURSIVE present (queue) AS (
    (SELECT j.queue FROM @schema@.jobs j WHERE j.position IS NOT NULL ORDER BY j.queue LIMIT 1)
    UNION ALL
    SELECT (SELECT j.queue FROM @schema@.jobs j WHERE j.position IS NOT NULL AND j.queue > p.queue ORDER BY j.queue LIMIT 1)
      FROM present p WHERE p.queue IS NOT NULL
)
SELECT 'fail', format('jobs wait in queue %s, which no living node serves', p.queue),
       format('a [queue %s] section in the configuration of a node', p.queue)
  FROM present p
 WHERE p.queue IS NOT NULL
   AND EXISTS (SELECT FROM @schema@.jobs j WHERE j.queue = p.queue AND j.position IS NOT NULL AND j.state = 'available')
   AND NOT EXISTS (SELECT FROM @schema@.nodes n WHERE n.expires_at > clock_timestamp() AND n.queues ? p.queue)
