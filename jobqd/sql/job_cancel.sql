-- Cancels a job; when it was not to be cancelled, the state that it is in.
--   $1 id
SELECT c.done, (SELECT j.state FROM @schema@.all_jobs j WHERE j.id = $1::bigint) FROM @schema@.cancel($1::bigint) c (done)
