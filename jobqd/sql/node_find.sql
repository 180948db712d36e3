-- Who has this node name, the mark of its last renewal and its lease in ms, as in watch.sql.
--   $1 name
SELECT n.id, n.host, n.pid, n.pid_start, (extract(epoch FROM n.renewed_at) * 1000000)::bigint AS mark,
       (extract(epoch FROM n.expires_at - n.renewed_at) * 1000)::bigint AS lease_ms
  FROM @schema@.nodes n
 WHERE n.name = $1
