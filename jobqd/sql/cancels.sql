-- The attempts on this node that jobq.cancel was called for, in order.
--   $1 node
SELECT c.job_id, c.attempt FROM @schema@._cancels c WHERE c.node_id = $1 ORDER BY c.job_id, c.attempt
