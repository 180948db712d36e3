-- Acknowledges completed jobs without a result: out of the live table, into the history. Fenced: only the
-- attempt that holds the job ends it. The command's row count says how many were accepted.
--   $1 ids  $2 attempts  $3 node
WITH done AS (
    DELETE FROM @schema@.jobs j
     USING unnest($1::bigint[], $2::int[]) AS a (id, attempt)
     WHERE j.id = ANY (ARRAY[a.id]) AND j.attempt = a.attempt AND j.attempted_by = $3 AND j.state = 'executing'
    RETURNING j.*
)
INSERT INTO @schema@._finished_completed
       (id, inserted_at, scheduled_at, attempted_at, attempted_by, finished_at, state, attempt, max_attempts,
        timeout_ms, priority, queue, kind, args, meta, tags, errors, key, unique_key, expires_at)
SELECT id, inserted_at, scheduled_at, attempted_at, attempted_by, now(), 'completed', attempt, max_attempts,
       timeout_ms, priority, queue, kind, args, meta, tags, errors, key, unique_key, expires_at
  FROM done
