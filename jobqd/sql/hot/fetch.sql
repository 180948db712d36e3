-- The args and meta of claimed jobs that were too large to come with the claim, in the order asked for, until their
-- sizes together reach the limit; at least one. A job that this node does not hold any more is left out. Texts that no
-- frame could take are not sent: null, and their size.
--   $1 ids  $2 node  $3 limit in bytes  $4 what a frame takes, in bytes
--
-- `#> '{}'` unpacks a compressed value, without making text of it: pg_column_size by itself would tell what is stored. No
-- text is less than a quarter of that: what is too large by then is never made into text.
SELECT t.id, CASE WHEN s.bytes <= $4 THEN s.args END AS args, CASE WHEN s.bytes <= $4 THEN s.meta END AS meta,
       coalesce(s.bytes, t.bytes / 4) AS bytes
  FROM (SELECT wanted.nth, j.id, j.args, j.meta, size.bytes,
               sum(CASE WHEN size.bytes / 4 > $4 + 1024 THEN 0 ELSE size.bytes END)
                   OVER (ORDER BY wanted.nth ROWS UNBOUNDED PRECEDING) AS total
          FROM unnest($1::bigint[]) WITH ORDINALITY AS wanted (id, nth)
          JOIN @schema@.jobs j ON j.id = ANY (ARRAY[wanted.id]) AND j.attempted_by = $2 AND j.state = 'executing'
         CROSS JOIN LATERAL (SELECT (pg_column_size(j.args #> '{}') + pg_column_size(j.meta #> '{}'))::bigint AS bytes) size) t
 CROSS JOIN LATERAL (
        SELECT x.args, x.meta, (octet_length(x.args) + octet_length(x.meta))::bigint AS bytes
          FROM (SELECT CASE WHEN t.bytes / 4 <= $4 + 1024 THEN t.args::text END AS args,
                       CASE WHEN t.bytes / 4 <= $4 + 1024 THEN t.meta::text END AS meta
                OFFSET 0) x) s
 WHERE t.total - t.bytes < $3
 ORDER BY t.nth
