-- Cancels a job; when it was not ended by that, the state that it is in: executing means that its node is asked.
--   $1 id
SELECT c.done, (SELECT j.state FROM @schema@.all_jobs j WHERE j.id = $1::bigint) FROM @schema@.cancel($1::bigint) c (done)
