-- The lifeline, first step: takes the rows of nodes whose lease has run out (and of those named) away from them. The
-- key changes, so this waits for a claim in flight; bury.sql follows in the same transaction with a
-- snapshot of its own, and so sees what that claim took.
--   $1 ids of nodes known to be dead, whatever their lease says
UPDATE @schema@.nodes n
   SET session = -1
 WHERE n.expires_at < clock_timestamp() OR n.id = ANY ($1::bigint[])
