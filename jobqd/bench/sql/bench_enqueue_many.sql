-- Many jobs through the function that any language calls.
--   $1 a JSON array
SELECT count(*) FROM @schema@.enqueue_many($1::jsonb)
