-- From now on, who inserts into this queue wakes us. Not when the lifeline has ended this node: the mark would stay
-- for ever.
--   $1 queue  $2 node
INSERT INTO @schema@._idle (queue, node_id)
SELECT $1, n.id FROM @schema@.nodes n WHERE n.id = $2 FOR KEY SHARE
    ON CONFLICT DO NOTHING
