-- Deletes a job. Not done: it runs, and its node is asked.
--   $1 id
SELECT d.done, 'executing' FROM @schema@.delete($1::bigint) d (done)
