-- A node is about to leave: waits for its last claim, if one is still under way, and shuts out later ones.
--   $1 node
UPDATE @schema@.nodes SET session = -1 WHERE id = $1
