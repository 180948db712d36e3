-- What this node's configuration says of its queues' max_attempts. How many queues have another one now; how many rows somebody
-- else has locked.
--   $1 node's name  $2 an object of its queues, with a number or null
SELECT d.changed, d.busy FROM @schema@._queue_declare($1, $2) d
