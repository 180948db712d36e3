-- jobq, migration 6: more ways to end: expires_at, and jobs that are to leave no trace.

-- A job that has not begun its first attempt by then is cancelled. A claim never hands one out after that time; the leader
-- sweeps them up. No column that a claim changes is in the index.
ALTER TABLE @schema@.jobs ADD COLUMN expires_at timestamptz;
CREATE INDEX jobs_expires ON @schema@.jobs (expires_at) WHERE expires_at IS NOT NULL;
ALTER TABLE @schema@.finished_jobs ADD COLUMN expires_at timestamptz;

-- The running job is to be ended and forgotten (jobq.delete): whoever settles it keeps no history of it.
ALTER TABLE @schema@.cancels ADD COLUMN forget boolean NOT NULL DEFAULT false;

CREATE OR REPLACE VIEW @schema@.all_jobs AS
    SELECT id, state, queue, kind, args, meta, tags, priority, position, attempt, max_attempts, errors,
           key, unique_key, timeout_ms, inserted_at, scheduled_at, attempted_at, attempted_by,
           NULL::timestamptz AS finished_at, NULL::jsonb AS result,
           NULL::bigint AS run_us, NULL::bigint AS cpu_us, NULL::bigint AS max_rss_kb, expires_at
      FROM @schema@.jobs
    UNION ALL
    SELECT id, state, queue, kind, args, meta, tags, priority, position, attempt, max_attempts, errors,
           key, unique_key, timeout_ms, inserted_at, scheduled_at, attempted_at, attempted_by,
           finished_at, result, run_us, cpu_us, max_rss_kb, expires_at
      FROM @schema@.finished_jobs;

-- As before, with expires_at.
CREATE OR REPLACE FUNCTION @schema@.cancel_live(id bigint) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    running record;
BEGIN
    LOOP
        WITH gone AS (
            DELETE FROM @schema@.jobs
             WHERE id = cancel_live.id AND state IN ('scheduled', 'available', 'retryable', 'suspended')
            RETURNING *)
        INSERT INTO @schema@.finished_jobs (id, inserted_at, scheduled_at, attempted_at, attempted_by, finished_at,
               state, attempt, max_attempts, timeout_ms, priority, queue, kind, args, meta, tags, errors, key,
               unique_key, expires_at)
        SELECT id, inserted_at, scheduled_at, attempted_at, attempted_by, clock_timestamp(),
               'cancelled', attempt, max_attempts, timeout_ms, priority, queue, kind, args, meta, tags, errors, key,
               unique_key, expires_at
          FROM gone;
        IF FOUND THEN
            RETURN 'cancelled';
        END IF;

        SELECT j.attempt, j.attempted_by, j.state INTO running FROM @schema@.jobs j WHERE j.id = cancel_live.id;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
        IF running.state = 'executing' THEN
            -- DO NOTHING: an earlier request's row must not be locked, the settling of the job would wait for us.
            INSERT INTO @schema@.cancels (job_id, attempt, node_id)
            VALUES (cancel_live.id, running.attempt, coalesce(running.attempted_by, 0)) ON CONFLICT DO NOTHING;
            PERFORM pg_notify('@channel@', 'cancel');
            RETURN 'asked';
        END IF;
        -- Its attempt has ended between the two statements: it waits now.
    END LOOP;
END
$$;

-- As before; an expiry that has passed is forgotten: whoever retries a job wants it to run.
CREATE OR REPLACE FUNCTION @schema@.retry(id bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    old @schema@.finished_jobs;
    of_queue text;
BEGIN
    UPDATE @schema@.jobs
       SET state = 'available', position = @schema@.next_position(), scheduled_at = now(),
           retried_attempt = attempt, expires_at = CASE WHEN expires_at > now() THEN expires_at END
     WHERE id = retry.id AND state IN ('scheduled', 'retryable')
    RETURNING queue INTO of_queue;
    IF FOUND THEN
        DELETE FROM @schema@.cancels WHERE job_id = retry.id;
        PERFORM @schema@.wake(ARRAY[of_queue]);
        RETURN true;
    END IF;

    DELETE FROM @schema@.finished_jobs WHERE id = retry.id RETURNING * INTO old;
    IF NOT FOUND THEN
        PERFORM @schema@.state_of('retry', retry.id);
        RETURN false;
    END IF;
    -- An attempt's number is never used twice (it fences the acks), so it cannot be set back either.
    IF old.attempt >= 1000 THEN
        RAISE EXCEPTION 'jobq.retry: job % has used all 1000 attempts; enqueue it as a new job', retry.id
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    DELETE FROM @schema@.cancels WHERE job_id = retry.id;
    -- The insert's trigger wakes the nodes.
    INSERT INTO @schema@.jobs (id, inserted_at, attempted_at, attempted_by, attempt, max_attempts, timeout_ms,
                               priority, queue, kind, args, meta, tags, errors, key, unique_key,
                               retried_attempt, expires_at)
    VALUES (old.id, old.inserted_at, old.attempted_at, old.attempted_by, old.attempt,
            greatest(old.max_attempts, old.attempt + 1), old.timeout_ms, old.priority, old.queue, old.kind,
            old.args, old.meta, old.tags, old.errors, old.key, old.unique_key, old.attempt,
            CASE WHEN old.expires_at > now() THEN old.expires_at END)
    ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'jobq.retry: job % has the unique key %, which another live job holds', retry.id,
            to_json(old.unique_key) USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN true;
END
$$;

-- As before, with expires_at.
CREATE OR REPLACE FUNCTION @schema@.complete(id bigint, attempt int, result jsonb DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    now_state @schema@.job_state;
    now_attempt int;
BEGIN
    IF complete.attempt IS NULL OR complete.attempt < 1 THEN
        RAISE EXCEPTION 'jobq.complete: attempt must be 1 or more, got %', coalesce(complete.attempt::text, 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    WITH gone AS (
        DELETE FROM @schema@.jobs
         WHERE id = complete.id AND attempt = complete.attempt AND state = 'executing'
        RETURNING *)
    INSERT INTO @schema@.finished_jobs (id, inserted_at, scheduled_at, attempted_at, attempted_by, finished_at,
           run_us, state, attempt, max_attempts, timeout_ms, priority, queue, kind, args, meta, tags, errors, key,
           unique_key, expires_at, result)
    SELECT id, inserted_at, scheduled_at, attempted_at, attempted_by, clock_timestamp(),
           extract(epoch FROM clock_timestamp() - attempted_at) * 1000000, 'completed', attempt, max_attempts,
           timeout_ms, priority, queue, kind, args, meta, tags, errors, key, unique_key, expires_at, complete.result
      FROM gone;
    IF FOUND THEN
        RETURN;
    END IF;
    now_state := @schema@.state_of('complete', complete.id);
    IF now_state = 'executing' THEN
        SELECT attempt INTO now_attempt FROM @schema@.jobs WHERE id = complete.id;
    END IF;
    RAISE EXCEPTION 'jobq.complete: job % is not executing attempt %: it is %', complete.id, complete.attempt,
        now_state || coalesce(' attempt ' || now_attempt, '')
        USING ERRCODE = 'object_not_in_prerequisite_state';
END
$$;
