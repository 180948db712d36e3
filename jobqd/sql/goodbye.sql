-- A node leaves in good order; its jobs are settled. Whoever waits for the lead hears of it.
--   $1 node
WITH quiet AS (
    DELETE FROM @schema@.idle WHERE node_id = $1
), crown AS (
    DELETE FROM @schema@.leader WHERE node_id = $1 RETURNING node_id
), gone AS (
    DELETE FROM @schema@.nodes WHERE id = $1
)
SELECT pg_notify('@channel@', 'leader') FROM crown
