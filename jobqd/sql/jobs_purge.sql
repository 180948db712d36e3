-- Deletes the jobs whose args contain these: how many.
--   $1 args  $2 kind  $3 queue (each null: any)
SELECT @schema@.purge($1::jsonb, $2, $3)
