-- The args and meta of claimed jobs that were too large to come with the claim, in the order asked for, until their
-- sizes together reach the limit; at least one. A job that this node does not hold any more is left out.
--   $1 ids  $2 node  $3 limit in bytes
--
-- `#> '{}'` unpacks a compressed value, without making text of it: pg_column_size alone would tell what is stored.
SELECT t.id, t.args, t.meta
  FROM (SELECT wanted.nth, j.id, j.args, j.meta, size.bytes,
               sum(size.bytes) OVER (ORDER BY wanted.nth ROWS UNBOUNDED PRECEDING) AS total
          FROM unnest($1::bigint[]) WITH ORDINALITY AS wanted (id, nth)
          JOIN @schema@.jobs j ON j.id = wanted.id AND j.attempted_by = $2 AND j.state = 'executing'
         CROSS JOIN LATERAL (SELECT pg_column_size(j.args #> '{}') + pg_column_size(j.meta #> '{}') AS bytes) size) t
 WHERE t.total - t.bytes < $3
 ORDER BY t.nth
