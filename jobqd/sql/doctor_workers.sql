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
                   THEN 'the workers of queue %s on node %s end badly again and again, none is started for now: %s'
                   ELSE 'new workers of queue %s on node %s do not come up, old ones go on where there are any: %s' END,
              s.queue, s.node, coalesce(s.pool ->> 'trouble', 'its log says how')),
       'mend the program or its environment, try it with jobqd config check --start, then jobqd reload --wait on that node'
  FROM said s
 WHERE s.pool -> 'backing_off' = 'true'
    OR CASE WHEN jsonb_typeof(s.pool -> 'failed_boots') = 'number' THEN (s.pool -> 'failed_boots')::numeric > 0 ELSE false END
 ORDER BY s.queue, s.node
