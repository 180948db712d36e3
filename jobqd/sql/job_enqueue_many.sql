-- `jobqd enqueue -`: a batch of lines.
--   $1 a JSON array
SELECT @schema@.enqueue_many($1::jsonb)
