-- Cancel, retry, delete and complete one job, and wait for its end.

CREATE OR REPLACE FUNCTION @schema@._state_of(caller text, id bigint) RETURNS @schema@.job_state
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    found_state @schema@.job_state;
BEGIN
    IF _state_of.id IS NULL THEN
        RAISE EXCEPTION 'jobq.%: id must be a job''s id, got null', caller
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- One snapshot over both tables: a job that moves from one to the other is seen in one of them.
    SELECT state INTO found_state FROM @schema@.all_jobs WHERE id = _state_of.id;
    IF found_state IS NULL THEN
        RAISE EXCEPTION 'jobq.%: no job has the id %', caller, _state_of.id USING ERRCODE = 'no_data_found';
    END IF;
    RETURN found_state;
END
$$;
COMMENT ON FUNCTION @schema@._state_of IS 'The state of a job, live or finished; an error when no job has that id.';

-- Any other error may be the fault of one row, whatever its class: a trigger may meet a deadlock, a serialization failure or
-- a limit, lose a connection of its own, or declare its transaction read only. A full disk is the server's fault: if each
-- job were blamed for it, their ends would be recorded one by one for as long as the disk is full, and longer.
CREATE OR REPLACE FUNCTION @schema@._is_passing(state text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN left(state, 2) = '40' THEN current_setting('transaction_isolation') <> 'read committed'
                WHEN state = '25006' THEN current_setting('transaction_read_only') = 'on'
                ELSE state = '53100' END
$$;
COMMENT ON FUNCTION @schema@._is_passing IS
    'Whether an error concerns the transaction or the server as a whole: it then ends the call, which is made again.';

-- This transaction has locked the rows. deleted: how many. Rows that the database refuses to delete are found by halving and
-- left; the first of them is named in a warning. Rows whose deletion waits for a lock (of rows that go with them, for
-- example) are left without a warning; only the first such lock is waited for. At most 60 subtransactions succeed, because
-- more would slow down the snapshots of all sessions. untried: some rows are left for the next call.
CREATE OR REPLACE FUNCTION @schema@._delete_apart(partition text, tids tid[], OUT deleted int, OUT untried boolean)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
#variable_conflict use_variable
DECLARE
    until timestamptz; -- from the first lock on
    lows int[] := '{1}';
    highs int[] := ARRAY[cardinality(tids)];
    low int;
    high int;
    here bigint;
    used int := 0;
    told boolean := false;
    job text;
    text_of text;
BEGIN
    deleted := 0;
    untried := false;
    WHILE cardinality(lows) > 0 AND cardinality(tids) > 0 LOOP
        IF used >= 60 OR clock_timestamp() > until THEN
            untried := true;
            EXIT;
        END IF;
        low := lows[cardinality(lows)];
        high := highs[cardinality(highs)];
        lows := lows[1 : cardinality(lows) - 1];
        highs := highs[1 : cardinality(highs) - 1];
        BEGIN
            EXECUTE format('DELETE FROM @schema@.%I WHERE ctid = ANY ($1)', partition) USING tids[low : high];
            GET DIAGNOSTICS here = ROW_COUNT;
            SET CONSTRAINTS ALL IMMEDIATE;
            IF here <= high - low THEN -- or they have gone in the meantime, along with others
                EXECUTE format('SELECT count(*) FROM @schema@.%I WHERE ctid = ANY ($1)', partition) INTO here USING tids[low : high];
                IF here > 0 THEN
                    RAISE EXCEPTION 'a trigger or rule keeps its row from being deleted'
                        USING ERRCODE = 'triggered_action_exception';
                END IF;
            END IF;
            deleted := deleted + high - low + 1;
            used := used + 1;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            IF @schema@._is_passing(SQLSTATE) THEN
                RAISE;
            END IF;
            IF SQLSTATE = '55P03' AND until IS NULL THEN
                until := clock_timestamp() + interval '500 ms';
                PERFORM set_config('lock_timeout', '1ms', true);
            END IF;
            IF low < high THEN
                lows := lows || ARRAY[low + (high - low) / 2 + 1, low];
                highs := highs || ARRAY[high, low + (high - low) / 2];
            ELSIF NOT told AND SQLSTATE <> '55P03' THEN
                text_of := left(SQLERRM, 1000);
                EXECUTE format('SELECT coalesce(to_jsonb(t) ->> ''id'', to_jsonb(t) ->> ''job_id'') FROM @schema@.%I t '
                               'WHERE t.ctid = $1', partition) INTO job USING tids[low];
                RAISE WARNING 'job %: the database refuses to delete its row from %: %', job, partition, text_of
                    USING ERRCODE = '01JQ1';
                told := true;
            END IF;
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION @schema@._delete_apart IS
    'Deletes locked rows of a partition, and leaves those that the database refuses to delete.';

CREATE OR REPLACE FUNCTION @schema@._cancel_live(id bigint) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    running record;
BEGIN
    FOR turn IN 1 .. 100 LOOP
        WITH gone AS (
            DELETE FROM @schema@.jobs
             WHERE id = _cancel_live.id AND state IN ('scheduled', 'available', 'retryable', 'suspended')
            RETURNING *)
        INSERT INTO @schema@.finished_jobs
               (@job_columns@, errors, finished_at, state)
        SELECT @job_columns@, errors, clock_timestamp(), 'cancelled'
          FROM gone;
        IF FOUND THEN
            RETURN 'cancelled';
        END IF;

        SELECT j.attempt, j.attempted_by, j.state INTO running FROM @schema@.jobs j WHERE j.id = _cancel_live.id;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
        IF running.state = 'executing' THEN
            -- DO NOTHING: the row of an earlier request must not be locked, because settling the job would wait for us.
            INSERT INTO @schema@._cancels (job_id, attempt, node_id)
            VALUES (_cancel_live.id, running.attempt, coalesce(running.attempted_by, 0)) ON CONFLICT DO NOTHING;
            PERFORM @schema@._notify('cancel');
            RETURN 'asked';
        END IF;
        -- Its attempt has ended between the two statements: the job waits now.
    END LOOP;
    RAISE EXCEPTION 'job % cannot be cancelled: a trigger or rule on jobs keeps its row from being deleted', _cancel_live.id
        USING ERRCODE = 'triggered_action_exception';
END
$$;
COMMENT ON FUNCTION @schema@._cancel_live IS
    'Cancels a waiting job (cancelled), or asks the node of a running one to stop it (asked); null if no such job is live.';

CREATE OR REPLACE FUNCTION @schema@.cancel(id bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    done text;
BEGIN
    done := @schema@._cancel_live(cancel.id);
    IF done IS NULL THEN
        PERFORM @schema@._state_of('cancel', cancel.id);
    END IF;
    RETURN coalesce(done = 'cancelled', false);
END
$$;
COMMENT ON FUNCTION @schema@.cancel IS
'Cancels a job. A job that waits ends as cancelled at once. The node of an executing job is asked to stop it: it ends as
cancelled unless it completes first.
id is the job''s id. Returns true if the job is cancelled, false if it is executing or had finished before.
SQLSTATEs: P0002 no job has this id; 22023 id is null; 27000 a trigger or rule keeps the job from being cancelled.';

CREATE OR REPLACE FUNCTION @schema@._cancel_anew(forget boolean, ids bigint[]) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
    IF _cancel_anew.forget THEN
        UPDATE @schema@._cancels c SET forget = true
          FROM @schema@.jobs j
         WHERE c.job_id = ANY (ids) AND NOT c.forget AND j.id = ANY (ARRAY[c.job_id]) AND j.state = 'executing'
           AND j.attempt = c.attempt AND j.attempted_by = c.node_id;
    END IF;
    RETURN cardinality(@schema@._bulk_ask(_cancel_anew.forget, 'true', ids));
END
$$;
COMMENT ON FUNCTION @schema@._cancel_anew IS
    'Asks again to stop running jobs whose earlier request was for an attempt that has ended; returns how many.';

-- It has planner settings of its own, so that many ids are not looked up one by one.
CREATE OR REPLACE FUNCTION @schema@._ended_ids(matches text, by_id boolean) RETURNS bigint[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = on
SET enable_bitmapscan = on SET enable_hashjoin = on AS $$
#variable_conflict use_variable
DECLARE
    ids bigint[];
BEGIN
    IF by_id THEN
        PERFORM set_config('enable_seqscan', 'off', true);
    ELSE
        PERFORM set_config('enable_bitmapscan', 'off', true); -- BRIN must not be asked id by id
    END IF;
    EXECUTE format('SELECT ARRAY(SELECT j.id FROM @schema@.finished_jobs j WHERE %s)', matches) INTO ids;
    RETURN ids;
END
$$;
COMMENT ON FUNCTION @schema@._ended_ids IS 'The ids of the finished jobs that match; by_id: they are few.';

-- A job that has finished needs no request. A job that waits or runs again (its attempt ended while the request was under
-- way) is cancelled now, or deleted if the request says forget. A job that finished before its node heard of a request to
-- forget it is deleted as well. A second request to forget a running job is noted on the first. The leader waits for no
-- client: if a job or a request is locked, or the database refuses the change, the request stays for the next call and holds
-- up no other. Each call starts at another place among them.
CREATE OR REPLACE FUNCTION @schema@._cancel_again() RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET lock_timeout = '200ms' AS $$
#variable_conflict use_variable
DECLARE
    requests tid[];
    their_jobs bigint[];
    ended bigint[]; -- and to be forgotten
    since timestamptz;
    waiting bigint[];
    running bigint[];
    job bigint;
    at int;
    matches text;
    seen bigint[]; -- in the history
    kept bigint[] := '{}';
    again int := 0;
BEGIN
    SET CONSTRAINTS ALL IMMEDIATE; -- an error of the commit comes at its row
    FOR i IN 0 .. 1 LOOP -- first those to cancel, then those to forget
        WITH stale AS MATERIALIZED (
            SELECT r.ctid AS request, r.job_id, r.requested_at, j.state
              FROM @schema@._cancels r
              LEFT JOIN @schema@.jobs j ON j.id = ANY (ARRAY[r.job_id])
             WHERE r.forget = (i = 1) AND NOT r.job_id = ANY (kept)
                   AND (j.id IS NULL OR j.state <> 'executing' OR j.attempt <> r.attempt
                        OR coalesce(j.attempted_by, 0) <> r.node_id)
             LIMIT 10000
               FOR UPDATE OF r SKIP LOCKED)
        SELECT array_agg(t.request), array_agg(t.job_id), array_agg(DISTINCT t.job_id) FILTER (WHERE t.state IS NULL),
               min(t.requested_at) FILTER (WHERE t.state IS NULL),
               array_agg(DISTINCT t.job_id) FILTER (WHERE t.state <> 'executing'),
               array_agg(DISTINCT t.job_id) FILTER (WHERE t.state = 'executing')
          INTO requests, their_jobs, ended, since, waiting, running
          FROM stale t;
        CONTINUE WHEN requests IS NULL;
        IF waiting IS NOT NULL THEN
            at := random() * cardinality(waiting);
            again := again + @schema@._bulk_waiting(CASE i WHEN 1 THEN 'delete' ELSE 'cancel' END, 'true',
                                                   waiting[at + 1 :] || waiting[: at], true, true);
            kept := kept || ARRAY(SELECT j.id FROM @schema@.jobs j WHERE j.id = ANY (waiting));
        END IF;
        BEGIN
            again := again + @schema@._cancel_anew(i = 1, running);
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            IF @schema@._is_passing(SQLSTATE) THEN
                RAISE;
            END IF;
            -- One by one, but few: more than 64 subtransactions in one transaction slow down the snapshots of all sessions.
            PERFORM set_config('lock_timeout', '1ms', true);
            at := random() * cardinality(running);
            running := running[at + 1 :] || running[: at];
            kept := kept || running[31 :];
            FOREACH job IN ARRAY running[1 : 30] LOOP
                BEGIN
                    again := again + @schema@._cancel_anew(i = 1, ARRAY[job]);
                EXCEPTION WHEN OTHERS OR assert_failure THEN
                    IF @schema@._is_passing(SQLSTATE) THEN
                        RAISE;
                    END IF;
                    IF SQLSTATE <> '55P03' THEN
                        RAISE WARNING 'job %: the database refused a request to cancel it: %', job, left(SQLERRM, 1000)
                            USING ERRCODE = '01JQ1';
                    END IF;
                    kept := kept || job;
                END;
            END LOOP;
        END;
        IF i = 1 AND ended IS NOT NULL THEN
            -- They finished after the request; the hour is for a clock that was set.
            matches := format('j.id = ANY (%L::bigint[]) AND j.finished_at > %L::timestamptz', ended,
                              @schema@._iso(since - interval '1 hour'));
            seen := @schema@._ended_ids(matches, cardinality(ended) <= 200);
            seen := ARRAY(SELECT unnest(seen) EXCEPT
                          SELECT unnest(@schema@._bulk_ended('delete', matches, NULL, cardinality(ended) <= 200, 'skip', true)));
            kept := kept || seen;
        END IF;
        PERFORM @schema@._delete_apart('_cancels', ARRAY(SELECT u.request FROM unnest(requests, their_jobs) u (request, job_id)
                                                         WHERE NOT u.job_id = ANY (kept)));
    END LOOP;
    RETURN again;
END
$$;
COMMENT ON FUNCTION @schema@._cancel_again IS
    'Deals with requests that no running attempt answers any more; returns how many jobs it cancelled.';

-- It drops a left-over request to cancel, which must not reach the new attempt.
CREATE OR REPLACE FUNCTION @schema@.retry(id bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    old @schema@.finished_jobs;
    of_queue text;
    fault text;
BEGIN
    UPDATE @schema@.jobs
       SET state = 'available', position = @schema@._next_position(), scheduled_at = now(),
           retried_attempt = attempt, expires_at = CASE WHEN expires_at > now() THEN expires_at END
     WHERE id = retry.id AND state IN ('scheduled', 'retryable')
    RETURNING queue INTO of_queue;
    IF FOUND THEN
        DELETE FROM @schema@._cancels WHERE job_id = retry.id;
        PERFORM @schema@._wake(ARRAY[of_queue]);
        RETURN true;
    END IF;

    DELETE FROM @schema@.finished_jobs WHERE id = retry.id RETURNING * INTO old;
    IF NOT FOUND THEN
        PERFORM @schema@._state_of('retry', retry.id);
        RETURN false;
    END IF;
    -- The number of an attempt is never used twice (it fences the acks), so it cannot be set back either.
    IF old.attempt >= 1000 THEN
        RAISE EXCEPTION 'jobq.retry: job % has used all 1000 attempts; enqueue it as a new job', retry.id
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    -- The row may be from before a limit, or written by hand.
    fault := @schema@._job_fault(old.kind, old.args, old.queue, old.priority::int, NULL, old.max_attempts, old.key,
                                old.unique_key, old.tags, old.meta, old.timeout_ms);
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION 'jobq.retry: job % cannot run again: %', retry.id, fault
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    DELETE FROM @schema@._cancels WHERE job_id = retry.id;
    -- The insert's trigger wakes the nodes.
    INSERT INTO @schema@.jobs (id, inserted_at, attempted_at, attempted_by, attempt, max_attempts, timeout_ms,
                               priority, queue, kind, args, meta, tags, errors, key, unique_key,
                               retried_attempt, expires_at)
    VALUES (old.id, old.inserted_at, old.attempted_at, old.attempted_by, old.attempt,
            greatest(old.max_attempts, old.attempt + 1), old.timeout_ms, old.priority, old.queue, old.kind,
            old.args, old.meta, old.tags, @schema@._errors(old.errors), old.key, old.unique_key, old.attempt,
            CASE WHEN old.expires_at > now() THEN old.expires_at END)
    ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'jobq.retry: job % has the unique key %, which another live job holds', retry.id,
            to_json(old.unique_key) USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN true;
END
$$;
COMMENT ON FUNCTION @schema@.retry IS
'Makes a job available now: a finished job, which keeps its id and its errors, or a live job that waits for its time.
A finished job gets at least one more attempt. Crashes are counted anew, and an expires_at that has passed is dropped.
id is the job''s id. Returns true if the job is available again, false if it was available, executing or suspended.
SQLSTATEs: P0002 no job has this id; 22023 id is null; 55000 the job has used all 1000 attempts, no longer passes the checks
of a new job, or has a unique_key that another live job holds.';

CREATE OR REPLACE FUNCTION @schema@.delete(id bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    live record;
BEGIN
    IF delete.id IS NOT NULL THEN
        FOR turn IN 1 .. 100 LOOP
            live := @schema@._bulk_end(true, 'true', ARRAY[delete.id]);
            IF live.n > 0 THEN
                RETURN cardinality(live.asked) = 0;
            END IF;
            IF cardinality(@schema@._bulk_ended_at_once('delete', 'j.id = ' || delete.id, NULL, true, 'wait')) > 0 THEN
                RETURN true;
            END IF;
            PERFORM @schema@._state_of('delete', delete.id); -- it has just been retried, or
            DELETE FROM @schema@.jobs j -- the database refuses it, and says why here
             WHERE j.id = delete.id AND j.state IN ('scheduled', 'available', 'retryable', 'suspended');
            IF FOUND THEN
                RETURN true;
            END IF;
        END LOOP;
        RAISE EXCEPTION 'jobq.delete: job % cannot be deleted: a trigger or rule keeps its row', delete.id
            USING ERRCODE = 'triggered_action_exception';
    END IF;
    PERFORM @schema@._state_of('delete', NULL);
END
$$;
COMMENT ON FUNCTION @schema@.delete IS
'Deletes a job, live or finished, without a trace. The node of an executing job is asked to stop it; when it has ended, it
leaves no trace either.
id is the job''s id. Returns true if the job is gone, false if it is executing.
SQLSTATEs: P0002 no job has this id; 22023 id is null; 27000 a trigger or rule keeps the job''s row.';

-- Any other attempt is refused, so a handler that jobqd has given up on cannot commit.
CREATE OR REPLACE FUNCTION @schema@.complete(id bigint, attempt int, result jsonb DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    now_state @schema@.job_state;
    now_attempt int;
    fault text;
BEGIN
    IF complete.attempt IS NULL OR complete.attempt < 1 THEN
        RAISE EXCEPTION 'jobq.complete: attempt must be 1 or more, got %', coalesce(complete.attempt::text, 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF complete.result IS NOT NULL THEN
        fault := @schema@._content_fault(complete.result, name => 'result');
    END IF;
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION 'jobq.complete: %', fault USING ERRCODE = 'invalid_parameter_value';
    END IF;
    WITH gone AS (
        DELETE FROM @schema@.jobs
         WHERE id = complete.id AND attempt = complete.attempt AND state = 'executing'
        RETURNING *)
    INSERT INTO @schema@.finished_jobs
           (@job_columns@, errors, finished_at, state, run_us, result)
    SELECT @job_columns@, errors, clock_timestamp(), 'completed',
           extract(epoch FROM clock_timestamp() - attempted_at) * 1000000, complete.result
      FROM gone;
    IF FOUND THEN
        RETURN;
    END IF;
    now_state := @schema@._state_of('complete', complete.id);
    IF now_state = 'executing' THEN
        SELECT attempt INTO now_attempt FROM @schema@.jobs WHERE id = complete.id;
    END IF;
    RAISE EXCEPTION 'jobq.complete: job % is not executing attempt %: it is %', complete.id, complete.attempt,
        now_state || coalesce(' attempt ' || now_attempt, '')
        USING ERRCODE = 'object_not_in_prerequisite_state';
END
$$;
COMMENT ON FUNCTION @schema@.complete IS
'Completes a job in the transaction of its handler, so that the job''s effects and its end commit together. It is for the
handler only: just the attempt that is executing can be completed.
id and attempt are those that the handler was given. result is JSON of at most max_job_bytes (table settings), or null.
SQLSTATEs: 55000 that attempt is not executing, so roll back: jobqd has given it up; P0002 no job has this id; 22023 an
argument is wrong.';

-- ---- waiting for a job to finish ----

CREATE OR REPLACE FUNCTION @schema@._standing(id bigint, OUT state text, OUT result jsonb)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
BEGIN
    SELECT j.state::text INTO state FROM @schema@.jobs j WHERE j.id = _standing.id;
    IF NOT FOUND THEN
        SELECT j.state::text, j.result INTO state, result FROM @schema@.all_jobs j WHERE j.id = _standing.id;
    END IF;
    IF state IS NULL THEN
        RAISE EXCEPTION 'jobq.wait: no job has the id %; it may have completed without being kept, or been deleted',
            coalesce(_standing.id::text, 'null') USING ERRCODE = 'no_data_found';
    END IF;
END
$$;
COMMENT ON FUNCTION @schema@._standing IS 'The state and the result of a job, for wait(); an error when no job has that id.';

-- It commits between its looks, so that it holds no snapshot. A procedure that commits may have no SET clause, so every name
-- is qualified.
CREATE OR REPLACE PROCEDURE @schema@.wait(id bigint, timeout interval, INOUT state text DEFAULT NULL, INOUT result jsonb DEFAULT NULL)
LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    ends_at pg_catalog.timestamptz;
    left_s pg_catalog.float8;
    pause_s pg_catalog.float8 := 0.001;
BEGIN
    IF wait.timeout IS NULL OR wait.timeout OPERATOR(pg_catalog.<) '0'::pg_catalog.interval THEN
        RAISE EXCEPTION 'jobq.wait: timeout must be an interval of 0 or more, got %',
            coalesce(wait.timeout::pg_catalog.text, 'null') USING ERRCODE = 'invalid_parameter_value';
    END IF;
    ends_at := pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) least(wait.timeout, '100 years'::pg_catalog.interval);
    LOOP
        SELECT s.state, s.result INTO wait.state, wait.result FROM @schema@._standing(wait.id) s;
        left_s := pg_catalog.date_part('epoch', ends_at OPERATOR(pg_catalog.-) pg_catalog.clock_timestamp());
        EXIT WHEN wait.state OPERATOR(pg_catalog.=) ANY ('{completed,cancelled,discarded}'::pg_catalog.text[])
                  OR left_s OPERATOR(pg_catalog.<=) 0;
        COMMIT;
        PERFORM pg_catalog.pg_sleep(least(pause_s, left_s));
        pause_s := least(pause_s OPERATOR(pg_catalog.*) 1.5, 0.1);
    END LOOP;
END
$$;
COMMENT ON PROCEDURE @schema@.wait IS
'Waits until a job has finished or the timeout has passed, and returns its state and its result.
id is the job''s id, timeout an interval of 0 or more. Leave state and result out of the CALL. If state is not completed,
cancelled or discarded, the timeout has passed.
It commits between its looks. In a transaction block it therefore fails (2D000), unless the job has finished or timeout is 0.
SQLSTATEs: P0002 no job has this id, or it left no trace; 22023 timeout is wrong.';
