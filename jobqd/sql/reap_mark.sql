-- The lifeline, first step: takes the rows of dead nodes away from them. The key changes, so this waits for a claim in
-- flight; `reap` (maintenance.sql) follows in the same transaction with a snapshot of its own, and so sees what that claim took.
-- Whether a lease has run out is not asked of this server's clock, which may be set at any moment: whoever calls has
-- watched the node for its lease. One that has renewed since has another mark, and lives.
-- A row that is locked is left for the next time: a claim that hangs on a dead connection must not keep the lifeline
-- from the other nodes.
--   $1 ids of nodes known to be dead, whatever their lease says: these are waited for
--   $2 ids of nodes that have not renewed  $3 their marks, as watch.sql showed them
UPDATE @schema@.nodes n
   SET session = -1
 WHERE n.id = ANY ($1::bigint[])
    OR n.id IN (SELECT e.id
                  FROM @schema@.nodes e
                  JOIN unnest($2::bigint[], $3::bigint[]) AS still (id, mark)
                    ON still.id = e.id AND still.mark = (extract(epoch FROM
                       CASE WHEN isfinite(e.renewed_at) AND isfinite(e.expires_at) AND e.renewed_at < '100000-01-01'
                            THEN e.renewed_at ELSE '2000-01-01' END) * 1000000)::bigint
                   FOR UPDATE OF e SKIP LOCKED)
