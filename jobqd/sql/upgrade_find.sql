-- The node of that name, and how its last upgrade ended.
--   $1 name
SELECT pid, pid_start, host, version, upgrade ->> 'at', upgrade ->> 'from', upgrade ->> 'error'
  FROM @schema@.nodes
 WHERE name = $1
