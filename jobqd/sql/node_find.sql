-- Who has this node name.
--   $1 name
SELECT n.id, n.host, n.pid, n.pid_start, n.expires_at < clock_timestamp() AS expired,
       (extract(epoch FROM n.expires_at - clock_timestamp()) * 1000)::bigint AS left_ms
  FROM @schema@.nodes n
 WHERE n.name = $1
