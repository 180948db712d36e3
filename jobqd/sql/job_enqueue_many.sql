-- `jobqd enqueue -`: a batch of lines.
--   $1 a JSON array
SELECT e.id, CASE e.conflict WHEN 'ignored' THEN 'existing' ELSE e.conflict END
  FROM @schema@.try_enqueue_many($1::jsonb) e
