-- The node of that name, how its last upgrade ended, and how far its last reload is; which file it reads, and which crons of that
-- the database refuses.
--   $1 name
SELECT pid, pid_start, host, version, upgrade ->> 'at', upgrade ->> 'from', upgrade ->> 'error',
       reload ->> 'at', reload ->> 'state', reload ->> 'leaving', reload ->> 'error',
       reload ->> 'file', reload ->> 'crons', reload ? 'file'
  FROM @schema@.nodes
 WHERE name = $1
