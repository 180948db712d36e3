-- Claims up to @limit@ available jobs of one queue for this node, priority 0 first, each priority from
-- its cursor on. The rows come back in the table's order, not in the line's.
--   $1 queue  $2 cursors: for priorities 0 to 9, the position after which to look  $3 node  $4 session
--
-- `me` holds the node's row against the lifeline and against an older work connection of our own: without
-- the row, or with another session, nothing is claimed. The limit is a literal because a generic plan
-- for LIMIT $n expects a tenth of the table. Each priority's line is walked by jobs_claim in order; the
-- outer LIMIT stops before a line that is not needed is looked at. The rows are updated by one TID scan over an
-- array: a join by ctid or id asks the file's length or descends the index for each row, and is a third slower.
WITH me AS MATERIALIZED (
    SELECT n.id FROM @schema@.nodes n WHERE n.id = $3 AND n.session = $4 FOR KEY SHARE
)
UPDATE @schema@.jobs j
   SET state = 'executing', attempt = j.attempt + 1, attempted_at = now(), attempted_by = $3
 WHERE j.ctid = ANY (ARRAY(
       SELECT line.ctid
         FROM me
        CROSS JOIN unnest($2::bigint[]) WITH ORDINALITY AS cursors (after, nth)
        CROSS JOIN LATERAL (
               SELECT l.ctid
                 FROM @schema@.jobs l
                WHERE l.queue = $1 AND l.priority = (cursors.nth - 1)::smallint
                  AND l.position > cursors.after
                  AND @claimable@
                ORDER BY l.position
                LIMIT @limit@
                  FOR UPDATE SKIP LOCKED) line
        LIMIT @limit@))
@claimed@
