-- The lifeline, second step: removes the nodes that bury_mark.sql marked and gives their jobs back. Jobs without attempts
-- left are discarded, those that jobq.cancel was called for are cancelled.
WITH dead AS (
    DELETE FROM @schema@.nodes n
     WHERE n.session = -1
    RETURNING n.id, n.name
), orphans AS MATERIALIZED (
    SELECT j.id, j.queue, asked.forget,
           CASE WHEN asked.yes THEN 'cancelled'
                WHEN j.attempt < j.max_attempts THEN 'available'
                ELSE 'discarded' END::@schema@.job_state AS next,
           j.errors || (jsonb_build_object('attempt', j.attempt, 'at', now(), 'claimed_at', j.attempted_at,
               'node', dead.name, 'kind', 'orphaned',
               'error', format('node %s ended while it held the job', dead.name))
               || CASE WHEN asked.yes THEN '{"cancelled": "by request"}' ELSE '{}' END::jsonb) AS errors
      FROM @schema@.jobs j
      JOIN dead ON dead.id = j.attempted_by
     CROSS JOIN LATERAL (
            SELECT count(*) > 0 AS yes, coalesce(bool_or(c.forget), false) AS forget
              FROM @schema@.cancels c
             WHERE c.job_id = j.id AND c.attempt = j.attempt AND (c.node_id = j.attempted_by OR c.node_id < 0)) asked
     WHERE j.state = 'executing'
       FOR UPDATE OF j
), again AS (
    UPDATE @schema@.jobs j
       SET state = 'available', position = @schema@.next_position(), errors = o.errors
      FROM orphans o
     WHERE j.id = o.id AND o.next = 'available'
), ended AS (
    DELETE FROM @schema@.jobs j
     USING orphans o
     WHERE j.id = o.id AND o.next <> 'available'
    RETURNING o.next, j.id, j.inserted_at, j.scheduled_at, j.attempted_at, j.attempted_by, j.attempt, j.max_attempts,
              j.timeout_ms, j.priority, j.queue, j.kind, j.args, j.meta, j.tags, o.errors, j.key, j.unique_key, j.expires_at,
              o.forget
), kept AS (
    INSERT INTO @schema@.finished_jobs
           (id, inserted_at, scheduled_at, attempted_at, attempted_by, finished_at, state, attempt, max_attempts,
            timeout_ms, priority, queue, kind, args, meta, tags, errors, key, unique_key, expires_at)
    SELECT id, inserted_at, scheduled_at, attempted_at, attempted_by, now(), next, attempt, max_attempts,
           timeout_ms, priority, queue, kind, args, meta, tags, errors, key, unique_key, expires_at
      FROM ended
     WHERE NOT forget
), quiet AS (
    DELETE FROM @schema@.idle i USING dead WHERE i.node_id = dead.id
), answered AS (
    DELETE FROM @schema@.cancels c USING orphans o WHERE o.next = 'cancelled' AND c.job_id = o.id
)
SELECT dead.name,
       (SELECT count(*) FROM orphans o WHERE o.next = 'available') AS again,
       (SELECT count(*) FROM orphans o WHERE o.next <> 'available') AS ended,
       @schema@.wake((SELECT array_agg(DISTINCT o.queue) FROM orphans o WHERE o.next = 'available'))
  FROM dead
