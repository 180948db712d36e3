-- The lifeline, second step: removes the nodes that bury_mark.sql marked and gives their jobs back.
WITH dead AS (
    DELETE FROM @schema@.nodes n
     WHERE n.session = -1
    RETURNING n.id, n.name
), orphans AS MATERIALIZED (
    SELECT j.id, j.queue, j.attempt < j.max_attempts AS again,
           j.errors || jsonb_build_object('attempt', j.attempt, 'at', now(), 'kind', 'orphaned',
               'error', format('node %s ended while it held the job', dead.name)) AS errors
      FROM @schema@.jobs j
      JOIN dead ON dead.id = j.attempted_by
     WHERE j.state = 'executing'
       FOR UPDATE OF j
), again AS (
    UPDATE @schema@.jobs j
       SET state = 'available', position = @schema@.next_position(), errors = o.errors
      FROM orphans o
     WHERE j.id = o.id AND o.again
), ended AS (
    DELETE FROM @schema@.jobs j
     USING orphans o
     WHERE j.id = o.id AND NOT o.again
    RETURNING j.id, j.inserted_at, j.scheduled_at, j.attempted_at, j.attempted_by, j.attempt, j.max_attempts,
              j.timeout_ms, j.priority, j.queue, j.kind, j.args, j.meta, j.tags, o.errors, j.key, j.unique_key
), kept AS (
    INSERT INTO @schema@.finished_jobs
           (id, inserted_at, scheduled_at, attempted_at, attempted_by, finished_at, state, attempt, max_attempts,
            timeout_ms, priority, queue, kind, args, meta, tags, errors, key, unique_key)
    SELECT id, inserted_at, scheduled_at, attempted_at, attempted_by, now(), 'discarded', attempt, max_attempts,
           timeout_ms, priority, queue, kind, args, meta, tags, errors, key, unique_key
      FROM ended
), quiet AS (
    DELETE FROM @schema@.idle i USING dead WHERE i.node_id = dead.id
)
SELECT dead.name,
       (SELECT count(*) FROM orphans o WHERE o.again) AS again,
       (SELECT count(*) FROM orphans o WHERE NOT o.again) AS discarded,
       @schema@.wake((SELECT array_agg(DISTINCT o.queue) FROM orphans o WHERE o.again))
  FROM dead
