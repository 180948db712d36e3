-- What a claim changes of one row, and nothing else of what a claim does.
--   $1 id
UPDATE @schema@.bench_bare
   SET state = 'executing', attempt = attempt + 1, attempted_at = now(), attempted_by = 1
 WHERE id = $1
