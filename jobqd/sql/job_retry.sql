-- Makes a job available again; when it was not to be, the state that it is in.
--   $1 id
SELECT r.done, (SELECT j.state FROM @schema@.all_jobs j WHERE j.id = $1::bigint) FROM @schema@.retry($1::bigint) r (done)
