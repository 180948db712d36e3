-- A node leaves in good order; its jobs are settled, but for claims whose answer was lost and that no new session has given
-- back: that is done now. If some of them are locked or cannot be changed, the node's row stays for them, without its name,
-- and the lifeline ends it when its lease is over. Whoever waits for the lead hears of it.
--   $1 node
WITH audit AS MATERIALIZED (
    SELECT r.remaining FROM @schema@._release($1, '{}', NULL) r
), quiet AS (
    DELETE FROM @schema@._idle WHERE node_id = $1
), crown AS (
    DELETE FROM @schema@._leader WHERE node_id = $1 RETURNING node_id
), gone AS (
    DELETE FROM @schema@.nodes n USING audit a WHERE n.id = $1 AND a.remaining = '{}'
), kept AS (
    UPDATE @schema@.nodes n SET name = format('removed-%s %s', n.id, n.name), host = '-', pid = 0, pid_start = 0
      FROM audit a
     WHERE n.id = $1 AND a.remaining <> '{}'
)
SELECT pg_notify('@channel@', 'leader') FROM crown
