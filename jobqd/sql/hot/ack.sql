-- Acknowledgements without a result.

-- name: ack
-- Acknowledges completed jobs without a result: moves them from the live table to the history. Fenced: only the attempt
-- that holds the job ends it. The command's row count says how many were accepted.
--   $1 ids  $2 attempts  $3 node
WITH done AS (
    DELETE FROM @schema@.jobs j
     USING unnest($1::bigint[], $2::int[]) AS a (id, attempt)
     WHERE j.id = ANY (ARRAY[a.id]) AND j.attempt = a.attempt AND j.attempted_by = $3 AND j.state = 'executing'
    RETURNING j.*
)
INSERT INTO @schema@._finished_completed
       (@job_columns@, errors, finished_at, state)
SELECT @job_columns@, errors, now(), 'completed'
  FROM done

-- name: ack_drop
-- Acknowledges completed jobs of a queue that keeps no history (keep = none). Fenced like `ack`.
--   $1 ids  $2 attempts  $3 node
DELETE FROM @schema@.jobs j
 USING unnest($1::bigint[], $2::int[]) AS a (id, attempt)
 WHERE j.id = ANY (ARRAY[a.id]) AND j.attempt = a.attempt AND j.attempted_by = $3 AND j.state = 'executing'

-- name: held
-- Which of these attempts this node still holds, after acks that deleted no row. Most have ended in another way, for
-- example by jobq.complete() in the handler's transaction; but a trigger or a rule on jobs can keep a row without an error.
--   $1 ids  $2 attempts  $3 node
SELECT a.id
  FROM unnest($1::bigint[], $2::int[]) AS a (id, attempt)
  JOIN @schema@.jobs j ON j.id = ANY (ARRAY[a.id]) AND j.attempt = a.attempt AND j.attempted_by = $3 AND j.state = 'executing'
