-- A new work connection of this node: a claim of the old one that is still under way is waited for, a later one
-- finds no row to stand on.
--   $1 node
UPDATE @schema@.nodes SET session = session + 1 WHERE id = $1 AND session >= 0 RETURNING session
