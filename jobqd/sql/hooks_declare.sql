-- What this node's configuration says of on_discard_kind. How many queues have another one now.
--   $1 node's name  $2 an array of {queue, kind, to_queue} for each queue that it serves
SELECT @schema@._hooks_declare($1, $2)
