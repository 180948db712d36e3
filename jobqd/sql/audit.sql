-- Gives back the jobs that this node holds by the database's word, but not by its own: claims whose answer was lost
-- with the connection. They never started, so the attempt does not count. Runs after session.sql.
--   $1 node  $2 ids that the node knows it holds
UPDATE @schema@.jobs j
   SET state = 'available', position = @schema@.next_position(), attempt = j.attempt - 1
 WHERE j.state = 'executing' AND j.attempted_by = $1 AND j.id <> ALL ($2::bigint[])
