-- From now on, who inserts into this queue wakes us.
--   $1 queue  $2 node
INSERT INTO @schema@.idle (queue, node_id) VALUES ($1, $2) ON CONFLICT DO NOTHING
