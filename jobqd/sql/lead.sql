-- Takes or keeps the lead. A row comes back to the one node that has it until the lease ends, or until the node is found
-- dead: its row is gone, or marked (session -1) and only kept for jobs that another session has locked.
--   $1 node  $2 lease in ms
INSERT INTO @schema@._leader AS l (singleton, node_id, expires_at)
VALUES (true, $1, clock_timestamp() + $2 * interval '1 millisecond')
ON CONFLICT (singleton) DO UPDATE
   SET node_id = excluded.node_id, expires_at = excluded.expires_at
 WHERE l.node_id = excluded.node_id OR l.expires_at < clock_timestamp()
    OR NOT EXISTS (SELECT FROM @schema@.nodes n WHERE n.id = l.node_id AND n.session >= 0)
RETURNING l.node_id
