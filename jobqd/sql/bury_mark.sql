-- The lifeline, first step: takes the rows of nodes whose lease has run out (and of those named) away from them. The
-- key changes, so this waits for a claim in flight; bury.sql follows in the same transaction with a
-- snapshot of its own, and so sees what that claim took.
-- A row that is locked is left for the next time: a claim that hangs on a dead connection must not keep the lifeline
-- from the other nodes.
--   $1 ids of nodes known to be dead, whatever their lease says: these are waited for
UPDATE @schema@.nodes n
   SET session = -1
 WHERE n.id = ANY ($1::bigint[])
    OR n.id IN (SELECT e.id FROM @schema@.nodes e WHERE e.expires_at < clock_timestamp() FOR UPDATE SKIP LOCKED)
