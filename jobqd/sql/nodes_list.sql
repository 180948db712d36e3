-- Every node that is registered; the last column is the node as JSON.
SELECT n.name AS node, n.pid, n.version,
       to_char(n.started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS started,
       CASE WHEN NOT isfinite(n.expires_at) THEN 'not to be trusted'
            WHEN n.expires_at > clock_timestamp()
            THEN round(extract(epoch FROM n.expires_at - clock_timestamp())::numeric, 1) || ' s left'
            ELSE 'ended' END AS lease,
       CASE WHEN n.id = (SELECT l.node_id FROM @schema@._leader l WHERE l.expires_at > clock_timestamp())
            THEN 'leader' ELSE '' END AS role,
       jsonb_build_object('node', n.name, 'host', n.host, 'pid', n.pid, 'version', n.version,
           'started_at', @schema@._utc(n.started_at), 'renewed_at', @schema@._utc(n.renewed_at),
           'expires_at', @schema@._utc(n.expires_at),
           'alive', n.expires_at > clock_timestamp()) AS json
  FROM @schema@.nodes n
 ORDER BY n.name
