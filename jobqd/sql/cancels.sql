-- The attempts on this node that jobq.cancel was called for.
--   $1 node
SELECT c.job_id, c.attempt FROM @schema@.cancels c WHERE c.node_id = $1
