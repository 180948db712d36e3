-- The names of the nodes that run on this schema; null when none does.
SELECT string_agg(n.name, ', ' ORDER BY n.name) FROM @schema@.nodes n WHERE n.expires_at > clock_timestamp()
