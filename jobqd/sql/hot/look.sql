-- The first available job of each priority beyond its safe base, as a plain read: a job that another
-- transaction has locked, but not taken for good, is seen here although a claim skips it.
-- jobq gives out positions from 1 on. An UPDATE by hand may set 0: it is reported as -1, because 0 means that nothing was found.
--   $1 queue  $2 bases: for priorities 0 to 9, the position after which to look
SELECT (SELECT CASE j.position WHEN 0 THEN -1 ELSE j.position END
          FROM @schema@.jobs j
         WHERE j.queue = $1 AND j.priority = (bases.nth - 1)::smallint
           AND j.position > bases.after AND j.state = 'available'
           AND (j.expires_at IS NULL OR j.expires_at > now() OR j.attempt > 0)
         ORDER BY j.position
         LIMIT 1) AS first
  FROM unnest($2::bigint[]) WITH ORDINALITY AS bases (after, nth)
 ORDER BY bases.nth
