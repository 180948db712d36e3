-- What jobq.pause and jobq.scale have set for this node's queues: one row a queue that was asked for, in any order. Beside
-- each, how far positions have been given out, and so by when they were (pure/ageing.h).
--   $1 the node's name  $2 queues
SELECT asked.queue, coalesce(q.paused, false) OR coalesce(n.paused, false) AS paused,
       coalesce(n.concurrency, q.concurrency) AS concurrency,
       (SELECT s.last_value - (NOT s.is_called)::int FROM @schema@.jobs_position_seq s) AS position
  FROM unnest($2::text[]) AS asked (queue)
  LEFT JOIN @schema@.queues q ON q.name = asked.queue
  LEFT JOIN @schema@.queue_nodes n ON n.queue = asked.queue AND n.node = $1
