-- Settles attempts that ended in any other way than a plain ok: with a result or measured use, failed, crashed,
-- discarded, cancelled, snoozed, released. Fenced like ack.sql. One row comes back for each accepted one.
--   $1 ids  $2 attempts  $3 outcomes: completed, failed, crashed, discarded, cancelled, snoozed, released
--   $4 delays in ms  $5 error entries  $6 results  $7 run_us  $8 cpu_us  $9 max_rss_kb
--   $10 node  $11 max_crashes (0: no limit)  $12 whether completed jobs are kept
--
-- A delay of 0 makes the job available at once, without the stager; released and snoozed attempts do
-- not count. A failed job without attempts left, and one that crashed max_crashes workers since it was last retried by
-- hand, is discarded: a worker that was killed for its memory counts as crashed. One that jobq.cancel was called for is
-- cancelled, however its attempt ended, unless it completed: a completed one is not asked about, its request is left
-- to housekeeping.
WITH a AS MATERIALIZED (
    SELECT *
      FROM unnest($1::bigint[], $2::int[], $3::text[], $4::bigint[], $5::jsonb[], $6::jsonb[],
                  $7::bigint[], $8::bigint[], $9::bigint[])
           AS u (id, attempt, outcome, delay_ms, entry, result, run_us, cpu_us, max_rss_kb)
), v AS MATERIALIZED (
    SELECT a.*, j.queue, asked.yes AS asked, asked.forget,
           CASE WHEN a.entry IS NOT NULL OR asked.yes THEN
               jsonb_build_object('attempt', a.attempt, 'at', now(), 'claimed_at', j.attempted_at,
                   'node', (SELECT n.name FROM @schema@.nodes n WHERE n.id = $10))
               || coalesce(a.entry, '{"kind": "cancelled", "error": "cancelled by request"}')
               || CASE WHEN asked.yes THEN '{"cancelled": "by request"}'
                       WHEN poison.yes THEN jsonb_build_object('discarded', format('crashed %s workers', $11))
                       ELSE '{}' END
           END AS noted,
           CASE WHEN a.outcome = 'completed' THEN a.outcome
                WHEN asked.yes OR a.outcome = 'cancelled' THEN 'cancelled'
                WHEN a.outcome = 'discarded' THEN a.outcome
                WHEN a.outcome IN ('failed', 'crashed') AND (j.attempt >= j.max_attempts OR poison.yes)
                THEN 'discarded'
                WHEN a.outcome = 'released' OR a.delay_ms <= 0 THEN 'available'
                WHEN a.outcome = 'snoozed' THEN 'scheduled'
                ELSE 'retryable' END::@schema@.job_state AS next
      FROM a
      JOIN @schema@.jobs j
        ON j.id = a.id AND j.attempt = a.attempt AND j.attempted_by = $10 AND j.state = 'executing'
     CROSS JOIN LATERAL (
            SELECT count(*) > 0 AS yes, coalesce(bool_or(c.forget), false) AS forget
              FROM @schema@.cancels c
             WHERE a.outcome <> 'completed'
               AND c.job_id = a.id AND c.attempt = a.attempt AND (c.node_id = $10 OR c.node_id < 0)) asked
     CROSS JOIN LATERAL (
            SELECT a.outcome = 'crashed' AND $11 > 0 AND
                   1 + (SELECT count(*) FROM jsonb_array_elements(j.errors) e
                         WHERE e ->> 'kind' IN ('crash', 'memory')
                           AND e -> 'attempt' > to_jsonb(coalesce(j.retried_attempt, 0))) >= $11 AS yes) poison
       FOR UPDATE OF j
), again AS (
    UPDATE @schema@.jobs j
       SET state = v.next,
           position = CASE WHEN v.next = 'available' THEN @schema@.next_position() END,
           attempt = j.attempt - CASE WHEN v.outcome IN ('snoozed', 'released') THEN 1 ELSE 0 END,
           scheduled_at = CASE WHEN v.outcome = 'released' THEN j.scheduled_at
                               ELSE now() + v.delay_ms * interval '1 millisecond' END,
           errors = CASE WHEN v.noted IS NULL THEN j.errors ELSE j.errors || v.noted END
      FROM v
     WHERE j.id = v.id AND v.next IN ('available', 'scheduled', 'retryable')
), ended AS (
    DELETE FROM @schema@.jobs j
     USING v
     WHERE j.id = v.id AND v.next IN ('completed', 'cancelled', 'discarded')
    RETURNING j.id, j.inserted_at, j.scheduled_at, j.attempted_at, j.attempted_by, v.run_us, v.cpu_us,
              v.max_rss_kb, v.next, j.attempt, j.max_attempts, j.timeout_ms, j.priority, j.queue, j.kind, j.args,
              j.meta, j.tags, CASE WHEN v.noted IS NULL THEN j.errors ELSE j.errors || v.noted END AS errors,
              j.key, j.unique_key, v.result, v.forget, j.expires_at
), kept AS (
    INSERT INTO @schema@.finished_jobs
           (id, inserted_at, scheduled_at, attempted_at, attempted_by, finished_at, run_us, cpu_us,
            max_rss_kb, state, attempt, max_attempts, timeout_ms, priority, queue, kind, args,
            meta, tags, errors, key, unique_key, result, expires_at)
    SELECT id, inserted_at, scheduled_at, attempted_at, attempted_by, now(), run_us, cpu_us,
           max_rss_kb, next, attempt, max_attempts, timeout_ms, priority, queue, kind, args,
           meta, tags, errors, key, unique_key, result, expires_at
      FROM ended
     WHERE ($12 OR next <> 'completed') AND NOT forget
), answered AS (
    DELETE FROM @schema@.cancels c USING v WHERE v.asked AND c.job_id = v.id
)
SELECT v.id, v.next::text,
       CASE WHEN v.next = 'available' THEN @schema@.wake(ARRAY[v.queue]) END,
       CASE WHEN v.next IN ('scheduled', 'retryable') AND v.delay_ms < 2000
            THEN pg_notify('@channel@', 'stage') END
  FROM v
