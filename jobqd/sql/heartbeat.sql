-- Renews the node's lease. No row comes back when the lifeline has declared it dead.
--   $1 node  $2 lease in ms  $3 state of its queues
UPDATE @schema@.nodes
   SET renewed_at = clock_timestamp(),
       expires_at = clock_timestamp() + $2 * interval '1 millisecond',
       queues = $3
 WHERE id = $1 AND session >= 0
RETURNING id
