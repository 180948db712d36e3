-- Acknowledges completed jobs of a queue that keeps no history (keep = none). Fenced like ack.sql.
--   $1 ids  $2 attempts  $3 node
DELETE FROM @schema@.jobs j
 USING unnest($1::bigint[], $2::int[]) AS a (id, attempt)
 WHERE j.id = ANY (ARRAY[a.id]) AND j.attempt = a.attempt AND j.attempted_by = $3 AND j.state = 'executing'
