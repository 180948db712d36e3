-- Whether a live node serves queue $1; only node $2 counts, if that is not null.
EXISTS (SELECT FROM @schema@.nodes n
                           WHERE n.expires_at > clock_timestamp() AND n.queues ? $1::text
                             AND n.name = coalesce($2::text, n.name))
