-- The row has served.
--   $1 id
DELETE FROM @schema@.bench_bare WHERE id = $1
