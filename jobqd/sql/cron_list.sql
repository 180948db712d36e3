-- `jobqd cron list`: every cron by name, when it comes next by the clocks of its zone. The JSON has all of it; away:
-- nodes of declared_by without a lease.
SELECT c.name, c.schedule, c.timezone, c.kind, CASE WHEN c.paused THEN 'yes' ELSE 'no' END AS paused,
       coalesce(@schema@._in_zone(c.next_at, c.timezone), '') AS next,
       coalesce(to_char(c.last_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), '') AS last,
       coalesce(c.error, CASE WHEN d.away = d.nodes THEN format('declared by %s, which %s not running',
           (SELECT string_agg(e.node, ', ') FROM jsonb_array_elements_text(d.away) e (node)),
           CASE jsonb_array_length(d.away) WHEN 1 THEN 'is' ELSE 'are' END) END, '') AS error,
       jsonb_build_object('name', c.name, 'schedule', c.schedule, 'timezone', c.timezone, 'kind', c.kind, 'args', c.args,
           'queue', c.queue, 'priority', c.priority, 'max_attempts', c.max_attempts, 'timeout_ms', c.timeout_ms,
           'meta', c.meta, 'tags', c.tags, 'missed', c.missed,
           'overlap', c.overlap, 'expires_ms', (extract(epoch FROM c.expires) * 1000)::bigint, 'unique_by', c.unique_by,
           'paused', c.paused, 'next_at', @schema@._utc(c.next_at), 'last_at', @schema@._utc(c.last_at), 'skipped_at', @schema@._utc(c.skipped_at),
           'last_job_id', c.last_job_id, 'error', c.error, 'declared_by', coalesce(d.nodes, '[]'),
           'away', coalesce(d.away, '[]'), 'updated_at', @schema@._utc(c.updated_at)) AS json
  FROM @schema@.crons c
 CROSS JOIN LATERAL (
        SELECT jsonb_agg(k.node ORDER BY k.node) AS nodes,
               jsonb_agg(k.node ORDER BY k.node)
                   FILTER (WHERE NOT EXISTS (SELECT FROM @schema@.nodes n
                                              WHERE n.name = k.node AND n.expires_at > clock_timestamp())) AS away
          FROM jsonb_object_keys(CASE WHEN jsonb_typeof(c.declared_by) = 'object' THEN c.declared_by ELSE '{}' END) k (node)) d
 ORDER BY c.name
