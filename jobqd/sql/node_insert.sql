-- Registers this node, unless its name is taken.
--   $1 name  $2 host  $3 pid  $4 pid_start  $5 version  $6 lease in ms
INSERT INTO @schema@.nodes (name, host, pid, pid_start, version, renewed_at, expires_at)
SELECT $1, $2, $3, $4, $5, clock.now, clock.now + $6 * interval '1 millisecond'
  FROM (SELECT clock_timestamp() AS now) clock
ON CONFLICT (name) DO NOTHING
RETURNING id
