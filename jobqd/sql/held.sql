-- Which of these attempts this node still holds: of acks that took no row away. Most have ended in another way, by
-- jobq.complete in the handler's transaction, say; but a trigger or a rule on jobs can keep a row without a word.
--   $1 ids  $2 attempts  $3 node
SELECT a.id
  FROM unnest($1::bigint[], $2::int[]) AS a (id, attempt)
  JOIN @schema@.jobs j ON j.id = ANY (ARRAY[a.id]) AND j.attempt = a.attempt AND j.attempted_by = $3 AND j.state = 'executing'
