-- As claim.sql, where waiting counts: the lines of the priorities are walked in segments, in the order given
-- (jobqd/pure/ageing.h). A statement of its own, so that the plain claim costs what it did.
--   $1 queue  $2 the segments' positions after which to look  $3 node  $4 session  $5 their priorities  $6 their last positions
WITH me AS MATERIALIZED (
    SELECT n.id FROM @schema@.nodes n WHERE n.id = $3 AND n.session = $4 FOR KEY SHARE
)
UPDATE @schema@.jobs j
   SET state = 'executing', attempt = j.attempt + 1, attempted_at = now(), attempted_by = $3
 WHERE j.ctid = ANY (ARRAY(
       SELECT line.ctid
         FROM me
        CROSS JOIN unnest($5::int[], $2::bigint[], $6::bigint[]) AS segments (priority, after, upto)
        CROSS JOIN LATERAL (
               SELECT l.ctid
                 FROM @schema@.jobs l
                WHERE l.queue = $1 AND l.priority = segments.priority::smallint
                  AND l.position > segments.after AND l.position <= segments.upto
                  AND @claimable@
                ORDER BY l.position
                LIMIT @limit@
                  FOR UPDATE SKIP LOCKED) line
        LIMIT @limit@))
@claimed@
