-- Claims as claim_aged.sql does, after the database refused a claim: jobs that it does not let us claim are passed over.
-- They come back, too, with what the database said. args and meta are left out, for fetch.sql.
--   $1 queue  $2 the segments' positions after which to look  $3 node  $4 session  $5 their priorities  $6 their last positions
--   $7 at most this many jobs
SELECT c.id, c.position, c.priority, c.attempt, c.max_attempts, c.timeout_ms, c.kind, c.args, c.meta, c.refusal, c.fresh
  FROM @schema@._claim_apart($1, $2, $3, $4, $5, $6, $7) c
