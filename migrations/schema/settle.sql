-- How attempts end.

-- Whether a job is a hook's, whose end calls no hook. A large meta is not read for that.
CREATE OR REPLACE FUNCTION @schema@._is_hooks(meta jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_column_size(meta) < 2000 AND jsonb_typeof(meta) = 'object' AND meta ? 'jobq.hook'
$$;

-- What a node tells of a job's failed attempt or end: to its log, and to the programs of on_failure and on_discard.
CREATE OR REPLACE FUNCTION @schema@._story(id bigint, kind text, queue text, attempt int, max_attempts int, state text, retry_at timestamptz,
    entry jsonb, hooks boolean) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('job', $1, 'kind', $2, 'queue', $3, 'attempt', $4, 'max_attempts', $5, 'state', $6,
                              'retry_at_ms', (extract(epoch FROM $7) * 1000)::bigint, 'error', $8, 'hooks', $9)
$$;

-- Settles attempts that ended in any way: completed (with a result or measured use), failed, crashed, discarded, cancelled,
-- snoozed, released. Fenced: only the attempt that holds the job on that node ends it. fate: accepted; refused: the
-- attempt had ended already, or is not this node's; locked: another session has the row, nothing was done. became: the job's
-- state; due: when it is tried again; hooks: the job is a hook's.
--   max_crashes 0: no limit   keep: whether completed jobs go to the history
--
-- A delay of 0 makes the job available at once, without the stager; released and snoozed attempts do not count. A failed
-- job without attempts left, and one that crashed max_crashes workers since it was last retried by hand, is discarded: a
-- worker that was killed for its memory counts as crashed. One that jobq.cancel was called for is cancelled, however its
-- attempt ended, unless it completed: a completed one is not asked about, its request is left to housekeeping.
CREATE OR REPLACE FUNCTION @schema@._settle(ids bigint[], attempts int[], outcomes text[], delays_ms bigint[], entries jsonb[],
    results jsonb[], run_us bigint[], cpu_us bigint[], max_rss_kb bigint[], node bigint, max_crashes int, keep boolean)
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
                                   -- at most a hundred years: an interval has its bound
                               ELSE now() + least(v.delay_ms, 3155760000000) * interval '1 millisecond' END,
               errors = CASE WHEN v.noted IS NULL THEN j.errors ELSE @schema@._add_error(j.errors, v.noted) END
          FROM v
         WHERE j.id = ANY (ARRAY[v.id]) AND v.next IN ('available', 'scheduled', 'retryable')
        RETURNING j.id, v.queue, v.next, v.delay_ms, v.outcome, j.scheduled_at, j.meta
    ), ended AS (
        DELETE FROM @schema@.jobs j
         USING v
         WHERE j.id = ANY (ARRAY[v.id]) AND v.next IN ('completed', 'cancelled', 'discarded')
        RETURNING j.id, j.inserted_at, j.scheduled_at, j.attempted_at, j.attempted_by, v.run_us, v.cpu_us,
                  v.max_rss_kb, v.next, j.attempt, j.max_attempts, j.timeout_ms, j.priority, j.queue, j.kind, j.args,
                  j.meta, j.tags,
                  CASE WHEN v.noted IS NULL THEN j.errors ELSE @schema@._add_error(j.errors, v.noted) END AS errors,
                  j.key, j.unique_key, v.result, v.forget, j.expires_at
    ), kept AS (
        INSERT INTO @schema@.finished_jobs
               (id, inserted_at, scheduled_at, attempted_at, attempted_by, finished_at, run_us, cpu_us,
                max_rss_kb, state, attempt, max_attempts, timeout_ms, priority, queue, kind, args,
                meta, tags, errors, key, unique_key, result, expires_at)
        SELECT e.id, e.inserted_at, e.scheduled_at, e.attempted_at, e.attempted_by, now(), e.run_us, e.cpu_us,
               e.max_rss_kb, e.next, e.attempt, e.max_attempts, e.timeout_ms, e.priority, e.queue, e.kind, e.args,
               e.meta, e.tags, e.errors, e.key, e.unique_key, e.result, e.expires_at
          FROM ended e
         WHERE ($12 OR e.next <> 'completed') AND NOT e.forget
    ), answered AS (
        DELETE FROM @schema@._cancels c USING v WHERE v.asked AND c.job_id = ANY (ARRAY[v.id])
    )
    -- What was written, not what was found: a trigger or a rule of the application's can keep a row without a word.
    SELECT array_agg(w.id), array_agg(w.next::text), array_agg(w.due), array_agg(w.hooks),
           array_agg(DISTINCT w.queue) FILTER (WHERE w.next = 'available'),
           bool_or(w.next IN ('scheduled', 'retryable') AND w.delay_ms < 2000)
      INTO accepted, states, dues, of_hooks, woken, soon
      FROM (SELECT a.id, a.queue, a.next, a.delay_ms, CASE WHEN a.outcome <> 'released' THEN a.scheduled_at END AS due,
                   a.outcome <> 'released' AND @schema@._is_hooks(a.meta) AS hooks
              FROM again a
             UNION ALL
            SELECT e.id, e.queue, e.next, 0, NULL, e.next = 'discarded' AND @schema@._is_hooks(e.meta) FROM ended e) w;
    IF woken IS NOT NULL THEN
        PERFORM @schema@._wake(woken);
    END IF;
    IF soon THEN
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

-- _settle for one attempt whose row this transaction has locked. Raises the error here that would come at the commit, and
-- one where a trigger or a rule of the application's kept the row as it was without a word. Returns what _settle does.
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

-- Settles attempts one by one, each by itself: at most 50 in one call, since more than 64 subtransactions slow down the
-- snapshots of all sessions. Arguments as _settle's. fate, besides _settle's:
--   stripped: recorded, but without its result or the details of its error
--   parked:   cannot be recorded; the job is suspended, and the leader tries again (_settle_again)
--   stuck:    not even that was taken; the job stays as it is, and the node tries again
-- message: what the database said, or who holds the lock.
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
        IF fate IS NULL AND state = '55P03' THEN -- a table, or a row that the application's trigger wants
            fate := 'locked';
            holders := coalesce(holders, nullif(@schema@._lock_holders(node), ''), message);
            message := holders;
            PERFORM set_config('lock_timeout', '1ms', true); -- once is patience enough
        END IF;
        bare := jsonb_build_object('kind', coalesce(left(entries[i] ->> 'kind', 20), 'error'), 'error',
            'the database refused what this attempt left (' || outcomes[i] || '): ' || left(message, 500), 'sqlstate', state);
        FOR without IN 1 .. 2 LOOP -- its details; any entry
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

-- Suspends a running job whose end the database does not take, and keeps that end for _settle_again. False: the database
-- does not take that either, and nothing was changed.
CREATE OR REPLACE FUNCTION @schema@._park(id bigint, attempt int, entry jsonb, doing text, state text, message text, outcome jsonb)
RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
BEGIN
    FOR without IN 1 .. 2 LOOP -- any entry
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
                -- Without the note nothing would end the job again: not so, then.
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

-- The leader: records the ends that the database refused, up to 50 of those that are due to be tried again: after 5
-- seconds, then ever more rarely, at least once a minute. Returns how many were recorded. Notes that say nothing of how
-- an attempt ended go when nothing was refused for an hour, or when the job has gone on: it has ended, or was claimed or
-- staged since. stories: of the attempts that failed and the jobs that were discarded.
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
