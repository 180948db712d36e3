-- Nodes that hold jobs but have no row any more get one again, for the lifeline: how many.
--   $1 lease in ms
SELECT @schema@._strays($1)
