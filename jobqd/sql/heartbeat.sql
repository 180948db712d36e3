-- Renews the node's lease. No row comes back when the lifeline has declared it dead. The clock is read once: it may be set
-- between two readings, and the difference is the lease that others go by.
--   $1 node  $2 lease in ms  $3 state of its queues
UPDATE @schema@.nodes n
   SET renewed_at = clock.now,
       expires_at = clock.now + $2 * interval '1 millisecond',
       queues = $3
  FROM (SELECT clock_timestamp() AS now) clock
 WHERE n.id = $1 AND n.session >= 0
RETURNING n.id
