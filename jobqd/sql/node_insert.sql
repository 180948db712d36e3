-- Registers this node, unless its name is taken.
--   $1 name  $2 host  $3 pid  $4 pid_start  $5 version  $6 lease in ms
INSERT INTO @schema@.nodes (name, host, pid, pid_start, version, expires_at)
VALUES ($1, $2, $3, $4, $5, clock_timestamp() + $6 * interval '1 millisecond')
ON CONFLICT (name) DO NOTHING
RETURNING id
