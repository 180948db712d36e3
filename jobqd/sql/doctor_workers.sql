-- Queues of living nodes whose workers do not come up, or end badly again and again. What a node has written is its own
-- word, and may be of any form.
WITH said AS (
    SELECT n.name AS node, q.key AS queue, q.value AS pool
      FROM @schema@.nodes n
     CROSS JOIN LATERAL jsonb_each(CASE WHEN jsonb_typeof(n.queues) = 'object' THEN n.queues ELSE '{}' END) q
     WHERE n.expires_at > clock_timestamp() AND jsonb_typeof(q.value) = 'object'
)
SELECT 'fail',
       format(CASE WHEN s.pool -> 'backing_off' = 'true'
                   THEN 'the workers of queue %s on node %s keep failing, none is started for now: %s'
                   ELSE 'new workers of queue %s on node %s do not start, old workers, if any, keep running: %s' END,
              s.queue, s.node, coalesce(s.pool ->> 'trouble', 'see its log')),
       'fix the program or its environment, test it with jobqd config check --start, then run jobqd reload --wait on that node'
  FROM said s
 WHERE s.pool -> 'backing_off' = 'true'
    OR CASE WHEN jsonb_typeof(s.pool -> 'failed_boots') = 'number' THEN (s.pool -> 'failed_boots')::numeric > 0 ELSE false END
 ORDER BY s.queue, s.node
