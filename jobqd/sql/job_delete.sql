-- Deletes a job; when that was not done, the state that it is in: executing means that its node is asked, another one that
-- the database refuses.
--   $1 id
SELECT d.done, coalesce((SELECT j.state::text FROM @schema@.jobs j WHERE j.id = $1::bigint), 'executing')
  FROM @schema@.delete($1::bigint) d (done)
