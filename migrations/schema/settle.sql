-- How attempts end.

-- A large meta is not read for that.
CREATE OR REPLACE FUNCTION @schema@._is_hooks(meta jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_column_size(meta) < 2000 AND jsonb_typeof(meta) = 'object' AND meta ? 'jobq.hook'
$$;
COMMENT ON FUNCTION @schema@._is_hooks IS 'Whether a hook enqueued the job; its end calls no hook.';

-- It goes to the node's log, and to the programs of on_failure and on_discard.
CREATE OR REPLACE FUNCTION @schema@._story(id bigint, kind text, queue text, attempt int, max_attempts int, state text, retry_at timestamptz,
    entry jsonb, hooks boolean) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('job', $1, 'kind', $2, 'queue', $3, 'attempt', $4, 'max_attempts', $5, 'state', $6,
                              'retry_at_ms', (extract(epoch FROM $7) * 1000)::bigint, 'error', $8, 'hooks', $9)
$$;
COMMENT ON FUNCTION @schema@._story IS 'What a node reports of a failed attempt or of a job''s end.';

-- outcomes: completed (with a result or measured use), failed, crashed, discarded, cancelled, snoozed or released. The
-- statement is fenced: only the attempt that holds the job on that node ends it. max_crashes: 0 is no limit. keep: whether
-- completed jobs go to the history. fate: accepted; refused: the attempt had ended before, or is not this node's; locked:
-- another session has locked the row, and nothing was done. became: the state of the job. due: when it is tried again.
-- hooks: a hook enqueued the job. node: 0 is a test's drain, whose transaction may be much older than `at`, the time of the
-- attempts' end; it wakes no node.
--
-- A delay of 0 makes the job available at once, without the stager. Released and snoozed attempts do not count. A failed job
-- without attempts left is discarded. So is a job that has crashed max_crashes workers since it was last retried by hand; a
-- worker that was killed for its memory counts as crashed. A job that jobq.cancel was called for is cancelled, however its
-- attempt ended, unless it completed. Requests are not looked up for a completed attempt: housekeeping deletes them.
CREATE OR REPLACE FUNCTION @schema@._settle(ids bigint[], attempts int[], outcomes text[], delays_ms bigint[], entries jsonb[],
    results jsonb[], run_us bigint[], cpu_us bigint[], max_rss_kb bigint[], node bigint, max_crashes int, keep boolean,
    at timestamptz DEFAULT now())
RETURNS TABLE (id bigint, fate text, became text, due timestamptz, hooks boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    accepted bigint[];
    states text[];
    dues timestamptz[];
    of_hooks boolean[];
    woken text[];
    soon boolean;
BEGIN
    WITH a AS MATERIALIZED (
        SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9)
               AS u (id, attempt, outcome, delay_ms, entry, result, run_us, cpu_us, max_rss_kb)
    ), v AS MATERIALIZED (
        SELECT a.*, j.queue, asked.yes AS asked, asked.forget,
               CASE WHEN a.entry IS NOT NULL OR asked.yes THEN
                   jsonb_build_object('attempt', a.attempt, 'at', $13, 'claimed_at', j.attempted_at,
                       'node', CASE WHEN $10 = 0 THEN 'drain' ELSE (SELECT n.name FROM @schema@.nodes n WHERE n.id = $10) END)
                   || coalesce(a.entry, '{"kind": "cancelled", "error": "cancelled by request"}')
                   || CASE WHEN asked.yes THEN '{"cancelled": "by request"}'
                           WHEN poison.yes THEN jsonb_build_object('discarded', format('crashed %s workers', $11))
                           ELSE '{}' END
               END AS noted,
               @next_state@ AS next
          FROM a
          JOIN @schema@.jobs j
            ON j.id = ANY (ARRAY[a.id]) AND j.attempt = a.attempt AND j.attempted_by = $10 AND j.state = 'executing'
         CROSS JOIN LATERAL (
                SELECT count(*) > 0 AS yes, coalesce(bool_or(c.forget), false) AS forget
                  FROM @schema@._cancels c
                 WHERE a.outcome <> 'completed'
                   AND c.job_id = a.id AND c.attempt = a.attempt AND (c.node_id = $10 OR c.node_id < 0)) asked
         CROSS JOIN LATERAL (
                SELECT a.outcome = 'crashed' AND $11 > 0 AND
                       1 + @schema@._crashes(j.errors, j.retried_attempt) >= $11 AS yes) poison
           FOR UPDATE OF j SKIP LOCKED
    ), again AS (
        UPDATE @schema@.jobs j
           SET state = v.next,
               position = CASE WHEN v.next = 'available' THEN @schema@._next_position() END,
               attempt = j.attempt - CASE WHEN v.outcome IN ('snoozed', 'released') THEN 1 ELSE 0 END,
               scheduled_at = CASE WHEN v.outcome = 'released' THEN j.scheduled_at
                                   -- at most a hundred years: an interval has a bound
                               ELSE $13 + least(v.delay_ms, 3155760000000) * interval '1 millisecond' END,
               errors = CASE WHEN v.noted IS NULL THEN j.errors ELSE @schema@._add_error(j.errors, v.noted) END
          FROM v
         WHERE j.id = ANY (ARRAY[v.id]) AND v.next IN ('available', 'scheduled', 'retryable')
        RETURNING j.id, v.queue, v.next, v.delay_ms, v.outcome, j.scheduled_at, j.meta
    ), ended AS (
        DELETE FROM @schema@.jobs j
         USING v
         WHERE j.id = ANY (ARRAY[v.id]) AND v.next IN ('completed', 'cancelled', 'discarded')
        RETURNING @job_columns_of_j@,
                  v.next, v.run_us, v.cpu_us, v.max_rss_kb, v.result, v.forget,
                  CASE WHEN v.noted IS NULL THEN j.errors ELSE @schema@._add_error(j.errors, v.noted) END AS all_errors
    ), kept AS (
        INSERT INTO @schema@.finished_jobs
               (@job_columns@, errors, finished_at, state, run_us, cpu_us, max_rss_kb, result)
        SELECT @job_columns@, e.all_errors, $13, e.next, e.run_us, e.cpu_us, e.max_rss_kb, e.result
          FROM ended e
         WHERE ($12 OR e.next <> 'completed') AND NOT e.forget
    ), answered AS (
        DELETE FROM @schema@._cancels c USING v WHERE v.asked AND c.job_id = ANY (ARRAY[v.id])
    )
    -- Report what was written, not what was found: a trigger or a rule of the application can keep a row without an error.
    SELECT array_agg(w.id), array_agg(w.next::text), array_agg(w.due), array_agg(w.hooks),
           array_agg(DISTINCT w.queue) FILTER (WHERE w.next = 'available'),
           bool_or(w.next IN ('scheduled', 'retryable') AND w.delay_ms < 2000)
      INTO accepted, states, dues, of_hooks, woken, soon
      FROM (SELECT a.id, a.queue, a.next, a.delay_ms, CASE WHEN a.outcome <> 'released' THEN a.scheduled_at END AS due,
                   a.outcome <> 'released' AND @schema@._is_hooks(a.meta) AS hooks
              FROM again a
             UNION ALL
            SELECT e.id, e.queue, e.next, 0, NULL, e.next = 'discarded' AND @schema@._is_hooks(e.meta) FROM ended e) w;
    IF woken IS NOT NULL AND $10 <> 0 THEN
        PERFORM @schema@._wake(woken);
    END IF;
    IF soon AND $10 <> 0 THEN
        PERFORM pg_notify('@channel@', 'stage');
    END IF;
    RETURN QUERY SELECT u.id, 'accepted'::text, u.became, u.due, u.hooks
                   FROM unnest(accepted, states, dues, of_hooks) u (id, became, due, hooks);
    IF coalesce(cardinality(accepted), 0) < cardinality($1) THEN
        RETURN QUERY
            SELECT u.id, CASE WHEN EXISTS (SELECT FROM @schema@.jobs j WHERE j.id = u.id AND j.attempt = u.attempt
                                              AND j.attempted_by = $10 AND j.state = 'executing')
                              THEN 'locked' ELSE 'refused' END, NULL::text, NULL::timestamptz, NULL::boolean
              FROM unnest($1, $2) u (id, attempt)
             WHERE u.id <> ALL (coalesce(accepted, '{}'));
    END IF;
END
$$;
COMMENT ON FUNCTION @schema@._settle IS 'Settles attempts that have ended in any way.';

-- It raises the error here that would come at the commit, and an error if a trigger or a rule of the application kept the
-- row as it was.
CREATE OR REPLACE FUNCTION @schema@._settle_one(id bigint, attempt int, outcome text, delay_ms bigint, entry jsonb, result jsonb,
    run_us bigint, cpu_us bigint, max_rss_kb bigint, node bigint, max_crashes int, keep boolean,
    OUT became text, OUT due timestamptz, OUT hooks boolean)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
BEGIN
    SELECT s.became, s.due, s.hooks INTO became, due, hooks
      FROM @schema@._settle(ARRAY[$1], ARRAY[$2], ARRAY[$3], ARRAY[$4], ARRAY[$5], ARRAY[$6], ARRAY[$7], ARRAY[$8],
                            ARRAY[$9], $10, $11, $12) s;
    SET CONSTRAINTS ALL IMMEDIATE;
    IF EXISTS (SELECT FROM @schema@.jobs j WHERE j.id = $1 AND j.attempt = $2 AND j.state = 'executing') THEN
        RAISE EXCEPTION 'a trigger or rule on jobs keeps its row from being changed'
            USING ERRCODE = 'triggered_action_exception';
    END IF;
END
$$;
COMMENT ON FUNCTION @schema@._settle_one IS '_settle for one attempt whose row this transaction has locked.';

-- At most 50 in one call, because more than 64 subtransactions slow down the snapshots of all sessions. The arguments are
-- those of _settle. fate, besides _settle's:
--   stripped: it is recorded, but without its result or the details of its error
--   parked:   it cannot be recorded; the job is suspended, and the leader tries again (_settle_again)
--   stuck:    the database refused that, too; the job stays as it is, and the node tries again
-- message: the error of the database, or the session that holds the lock.
CREATE OR REPLACE FUNCTION @schema@._settle_apart(ids bigint[], attempts int[], outcomes text[], delays_ms bigint[], entries jsonb[],
    results jsonb[], run_us bigint[], cpu_us bigint[], max_rss_kb bigint[], node bigint, max_crashes int, keep boolean)
RETURNS TABLE (id bigint, fate text, state text, message text, became text, due timestamptz, hooks boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    bare jsonb;
    holders text;
BEGIN
    FOR i IN 1 .. cardinality(ids) LOOP
        id := ids[i];
        fate := NULL;
        state := NULL;
        message := NULL;
        became := NULL;
        due := NULL;
        hooks := NULL;
        BEGIN
            PERFORM FROM @schema@.jobs j
              WHERE j.id = ids[i] AND j.attempt = attempts[i] AND j.attempted_by = node AND j.state = 'executing'
                FOR UPDATE SKIP LOCKED;
            IF NOT FOUND THEN
                SELECT 'locked', @schema@._holder_of(j.xmax) INTO fate, message FROM @schema@.jobs j
                 WHERE j.id = ids[i] AND j.attempt = attempts[i] AND j.attempted_by = node AND j.state = 'executing';
                fate := coalesce(fate, 'refused');
            ELSE
                SELECT s.became, s.due, s.hooks INTO became, due, hooks
                  FROM @schema@._settle_one(id, attempts[i], outcomes[i], delays_ms[i], entries[i], results[i], run_us[i],
                                            cpu_us[i], max_rss_kb[i], node, max_crashes, keep) s;
                fate := 'accepted';
            END IF;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            IF @schema@._is_passing(SQLSTATE) THEN
                RAISE;
            END IF;
            state := SQLSTATE;
            message := left(SQLERRM, 1000);
        END;
        IF fate IS NULL AND state = '55P03' THEN -- of a table, or of a row that the application's trigger wants
            fate := 'locked';
            holders := coalesce(holders, nullif(@schema@._lock_holders(node), ''), message);
            message := holders;
            PERFORM set_config('lock_timeout', '1ms', true); -- do not wait for the next lock
        END IF;
        bare := jsonb_build_object('kind', coalesce(left(entries[i] ->> 'kind', 20), 'error'), 'error',
            'the database refused the outcome of this attempt (' || outcomes[i] || '): ' || left(message, 500), 'sqlstate', state);
        FOR without IN 1 .. 2 LOOP -- 1: its details, 2: any entry
            CONTINUE WHEN fate IS NOT NULL OR (entries[i] IS NULL AND results[i] IS NULL);
            BEGIN
                SELECT s.became, s.due, s.hooks INTO became, due, hooks
                  FROM @schema@._settle_one(id, attempts[i], outcomes[i], delays_ms[i], CASE without WHEN 1 THEN bare END,
                                            NULL, run_us[i], cpu_us[i], max_rss_kb[i], node, max_crashes, keep) s;
                fate := 'stripped';
            EXCEPTION WHEN OTHERS OR assert_failure THEN
                IF @schema@._is_passing(SQLSTATE) THEN
                    RAISE;
                END IF;
            END;
        END LOOP;
        IF fate IS NULL THEN
            fate := CASE WHEN @schema@._park(id, attempts[i], bare, 'settle', state, message, jsonb_build_object(
                'attempt', attempts[i], 'outcome', outcomes[i], 'delay_ms', delays_ms[i], 'entry', entries[i],
                'result', results[i], 'run_us', run_us[i], 'cpu_us', cpu_us[i], 'max_rss_kb', max_rss_kb[i],
                'max_crashes', max_crashes, 'keep', keep)) THEN 'parked' ELSE 'stuck' END;
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION @schema@._settle_apart IS
    'Settles attempts one by one, so that an attempt that the database refuses stops no other.';

-- False: the database refuses that, too, and nothing was changed.
CREATE OR REPLACE FUNCTION @schema@._park(id bigint, attempt int, entry jsonb, doing text, state text, message text, outcome jsonb)
RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
BEGIN
    FOR without IN 1 .. 2 LOOP -- 2: any entry
        BEGIN
            UPDATE @schema@.jobs j
               SET state = 'suspended', position = NULL,
                   errors = CASE WHEN without = 2 THEN j.errors
                                 ELSE @schema@._add_error(j.errors, jsonb_build_object('attempt', $2, 'at', now()) || $3) END
             WHERE j.id = $1 AND j.attempt = $2 AND j.state = 'executing';
            SET CONSTRAINTS ALL IMMEDIATE;
            IF EXISTS (SELECT FROM @schema@.jobs j WHERE j.id = $1 AND j.attempt = $2 AND j.state = 'suspended') THEN
                PERFORM @schema@._refuse($1, $4, $5, $6, $7);
                IF EXISTS (SELECT FROM @schema@.refusals r WHERE r.job_id = $1 AND r.outcome IS NOT NULL) THEN
                    RETURN true;
                END IF;
                -- Without the note nothing would end the job again, so it must not be suspended.
                RAISE EXCEPTION 'the note was refused' USING ERRCODE = 'triggered_action_exception';
            END IF;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            IF @schema@._is_passing(SQLSTATE) THEN
                RAISE;
            END IF;
        END;
    END LOOP;
    RETURN false;
END
$$;
COMMENT ON FUNCTION @schema@._park IS
    'Suspends a running job whose end the database refuses, and keeps that end for _settle_again.';

-- The leader calls it. An outcome is tried again after 5 seconds, then ever more rarely, but at least once a minute.
-- recorded: how many. Notes without an outcome are deleted when nothing was refused for an hour, or when the job has moved
-- on: it has ended, or was claimed or staged since. stories: of the attempts that failed and the jobs that were discarded.
CREATE OR REPLACE FUNCTION @schema@._settle_again(OUT recorded int, OUT stories jsonb)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    refusal @schema@.refusals;
    o jsonb;
    job record;
    ended record;
BEGIN
    recorded := 0;
    stories := '[]';
    IF NOT EXISTS (SELECT FROM @schema@.refusals) THEN
        RETURN;
    END IF;
    DELETE FROM @schema@.refusals r
     WHERE r.ctid = ANY (ARRAY(SELECT d.ctid FROM @schema@.refusals d
                                WHERE d.outcome IS NULL
                                  AND (d.tried_at < clock_timestamp() - interval '1 hour'
                                       OR d.sqlstate = '55P03' AND d.again_at < clock_timestamp() - interval '1 minute'
                                       OR NOT EXISTS (SELECT FROM @schema@.jobs j WHERE j.id = d.job_id
                                             AND CASE d.doing
                                                 WHEN 'claim' THEN j.state = 'available'
                                                                   AND coalesce(j.attempted_at <= d.tried_at, true)
                                                 WHEN 'stage' THEN j.state IN ('scheduled', 'retryable')
                                                 WHEN 'expire' THEN j.state <> 'executing' AND j.attempt = 0
                                                 ELSE j.state = 'executing' END))
                                  FOR UPDATE SKIP LOCKED));
    FOR refusal IN
        SELECT r.* FROM @schema@.refusals r
         WHERE r.outcome IS NOT NULL
           AND r.tried_at < clock_timestamp() - least(greatest(r.tried_at - r.at, interval '5 seconds'), interval '1 minute')
         ORDER BY r.tried_at LIMIT 50
           FOR UPDATE SKIP LOCKED
    LOOP
        o := refusal.outcome;
        BEGIN
            SELECT j.attempted_by, j.kind, j.queue, j.max_attempts INTO job FROM @schema@.jobs j
             WHERE j.id = refusal.job_id AND j.attempt = (o ->> 'attempt')::int AND j.state = 'suspended'
               FOR UPDATE NOWAIT;
            IF FOUND THEN
                UPDATE @schema@.jobs j SET state = 'executing', position = @schema@._next_position()
                 WHERE j.id = refusal.job_id;
                SELECT s.* INTO ended FROM @schema@._settle_one(refusal.job_id, (o ->> 'attempt')::int, o ->> 'outcome',
                    coalesce((o ->> 'delay_ms')::bigint, 0), nullif(o -> 'entry', 'null'), nullif(o -> 'result', 'null'),
                    (o ->> 'run_us')::bigint, (o ->> 'cpu_us')::bigint, (o ->> 'max_rss_kb')::bigint, job.attempted_by,
                    coalesce((o ->> 'max_crashes')::int, 0), coalesce((o ->> 'keep')::boolean, true)) s;
                recorded := recorded + 1;
                IF o ->> 'outcome' IN ('failed', 'crashed', 'discarded') AND ended.became <> 'cancelled' THEN
                    stories := stories || @schema@._story(refusal.job_id, job.kind, job.queue, (o ->> 'attempt')::int,
                        job.max_attempts, ended.became, ended.due, o -> 'entry', ended.hooks);
                END IF;
            END IF;
            DELETE FROM @schema@.refusals r WHERE r.job_id = refusal.job_id;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            IF @schema@._is_passing(SQLSTATE) THEN
                RAISE;
            END IF;
            PERFORM @schema@._refuse(refusal.job_id, refusal.doing, SQLSTATE, left(SQLERRM, 1000));
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION @schema@._settle_again IS
    'Records up to 50 outcomes that the database has refused and that are due for another try.';
