-- We look by ourselves: nobody needs to wake us.
--   $1 queue  $2 node
DELETE FROM @schema@._idle WHERE queue = $1 AND node_id = $2
