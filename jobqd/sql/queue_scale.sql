-- Scales a queue: as queue_pause.sql.
--   $1 queue  $2 the node's name, or null for all  $3 how many workers, or null for as many as are configured
SELECT p.changed, EXISTS (SELECT FROM @schema@.nodes n
                           WHERE n.expires_at > clock_timestamp() AND n.queues ? $1::text
                             AND n.name = coalesce($2::text, n.name))
  FROM @schema@.scale($1::text, $3::int, $2::text) p (changed)
