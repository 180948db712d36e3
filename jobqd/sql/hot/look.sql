-- The first available job of each priority beyond its safe base, as a plain read: a job that another
-- transaction has locked, but not taken for good, is seen here although a claim skips it.
-- jobq gives out positions from 1 on. An UPDATE by hand may set 0: it is reported as -1, because 0 means that nothing was found.
--   $1 queue  $2 bases: for priorities 0 to 9, the position after which to look
SELECT (SELECT CASE l.position WHEN 0 THEN -1 ELSE l.position END
          FROM @schema@.jobs l
         WHERE l.queue = $1 AND l.priority = (bases.nth - 1)::smallint
           AND l.position > bases.after
           AND @claimable@
         ORDER BY l.position
         LIMIT 1) AS first
  FROM unnest($2::bigint[]) WITH ORDINALITY AS bases (after, nth)
 ORDER BY bases.nth
