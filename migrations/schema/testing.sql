-- For the tests of applications (jobq/testing.h). libjobq calls these on an application's connection, whose search_path it
-- does not control, so they are functions. Node 0, which never exists, holds the job.

-- but: not one of these jobs. upto: none with a greater id; 0: any. early: also jobs whose time has not come.
CREATE OR REPLACE FUNCTION @schema@._testing_claim(queue text, but bigint[], upto bigint, early boolean)
RETURNS TABLE (id bigint, kind text, job_queue text, args jsonb, meta jsonb, attempt int, max_attempts int, timeout_ms int)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    UPDATE @schema@.jobs j
       SET state = 'executing', attempt = j.attempt + 1, attempted_at = clock_timestamp(), attempted_by = 0,
           position = coalesce(j.position, @schema@._next_position())
     WHERE j.id = (
           SELECT l.id
             FROM @schema@.jobs l
            WHERE l.queue = $1 AND l.id <> ALL ($2) AND ($3 = 0 OR l.id <= $3)
              AND (l.state = 'available'
                   OR l.state IN ('scheduled', 'retryable') AND ($4 OR l.scheduled_at <= clock_timestamp()))
              AND (l.expires_at IS NULL OR l.expires_at > now() OR l.attempt > 0)
            ORDER BY l.priority, l.position NULLS LAST, l.scheduled_at, l.id
            LIMIT 1
              FOR UPDATE SKIP LOCKED)
    RETURNING j.id, j.kind, j.queue, j.args, j.meta, j.attempt, j.max_attempts, j.timeout_ms
$$;
COMMENT ON FUNCTION @schema@._testing_claim IS 'Claims the next job of a queue for a test.';

-- outcome is completed, failed, discarded, cancelled or snoozed. Null: that attempt does not hold the job.
--
-- _settle does it, for node 0. A test may run in one transaction, so the time comes from the clock: now() would be the
-- transaction's start, before the attempt began. A locked row is waited for first. A JSON null as the result counts as none.
CREATE OR REPLACE FUNCTION @schema@._testing_settle(id bigint, attempt int, outcome text, delay_ms bigint, entry jsonb, result jsonb,
    run_us bigint) RETURNS text
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT j.id FROM @schema@.jobs j WHERE j.id = $1 AND j.attempted_by = 0 FOR UPDATE;
    SELECT max(s.became)
      FROM @schema@._settle(ARRAY[$1], ARRAY[$2], ARRAY[$3], ARRAY[$4], ARRAY[$5], ARRAY[nullif($6, 'null')], ARRAY[$7],
                            '{NULL}', '{NULL}', 0, 0, true, clock_timestamp()) s
$$;
COMMENT ON FUNCTION @schema@._testing_settle IS 'Settles a job of a test by the rules of jobqd; returns its new state.';

CREATE OR REPLACE FUNCTION @schema@._testing_look(kind text, queue text, args jsonb, meta jsonb, tags text[], priority int, state text,
    due_from timestamptz, due_before timestamptz, OUT matching bigint, OUT nearest text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH seen AS (
        SELECT j.*,
               ARRAY[coalesce(j.kind = $1, true), coalesce(j.queue = $2, true), coalesce(j.args @> $3, true),
                     coalesce(j.meta @> $4, true), j.tags @> $5, coalesce(j.priority = $6, true),
                     coalesce(j.scheduled_at >= $8, true), coalesce(j.scheduled_at < $9, true)] AS fits
          FROM @schema@.all_jobs j
         WHERE CASE WHEN $7 IS NULL THEN j.state IN ('available', 'scheduled', 'retryable', 'suspended')
                    ELSE j.state::text = $7 END
    ), ranked AS (
        SELECT s.*, cardinality(array_positions(s.fits, true)) AS good FROM seen s
    )
    SELECT (SELECT count(*) FROM ranked r WHERE r.good = 8),
           (SELECT string_agg(n.line, '; ' ORDER BY n.good DESC, n.id DESC)
              FROM (SELECT r.good, r.id,
                           format('job %s kind %s queue %s priority %s %s args %s%s', r.id, to_json(r.kind), to_json(r.queue),
                                  r.priority, r.state, left(r.args::text, 80),
                                  CASE WHEN r.tags <> '{}' THEN ' tags ' || left(to_json(r.tags)::text, 40) ELSE '' END) AS line
                      FROM ranked r
                     ORDER BY r.good DESC, r.id DESC
                     LIMIT 3) n)
$$;
COMMENT ON FUNCTION @schema@._testing_look IS
    'How many jobs are like this one (null: any value), and the three that are most like it as text.';
