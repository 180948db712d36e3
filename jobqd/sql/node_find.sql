-- Who has this node name, the mark of its last renewal and its lease in ms, as in watch.sql.
--   $1 name
SELECT n.id, n.host, n.pid, n.pid_start, (extract(epoch FROM t.renewed_at) * 1000000)::bigint AS mark,
       (extract(epoch FROM t.expires_at - t.renewed_at) * 1000)::bigint AS lease_ms
  FROM @schema@.nodes n
 CROSS JOIN LATERAL (
        SELECT CASE WHEN f.fine THEN n.renewed_at ELSE '2000-01-01' END AS renewed_at,
               CASE WHEN f.fine THEN n.expires_at ELSE '2000-01-01 00:01' END AS expires_at
          FROM (SELECT isfinite(n.renewed_at) AND isfinite(n.expires_at) AND n.renewed_at < '100000-01-01' AS fine) f) t
 WHERE n.name = $1
