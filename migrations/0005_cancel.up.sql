-- jobq, migration 5: cancel reaches running jobs, and a retry by hand gives a fresh count of crashes.

-- The attempt after which somebody retried the job by hand: what crashed before counts no more for max_crashes. A claim does
-- not touch it, and no index knows it.
ALTER TABLE @schema@.jobs ADD COLUMN retried_attempt int;

-- Requests to end running jobs: one row an attempt, for the node that runs it. Not a mark in the job's own row, because
-- the client's transaction would lock that row against the ack for as long as it stays open. Whoever settles the
-- attempt takes the row away; what is left over (the job was done first, or its attempt ended while the request was
-- not yet committed) is for cancel_again().
CREATE TABLE @schema@.cancels (
    job_id       bigint NOT NULL,
    attempt      int NOT NULL,
    node_id      bigint NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job_id, attempt, node_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Ends a job that waits, asks the node of a running one to end it. What became of it: 'cancelled', 'asked', or null
-- when there is no such live job.
CREATE FUNCTION @schema@.cancel_live(id bigint) RETURNS text
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
               unique_key)
        SELECT id, inserted_at, scheduled_at, attempted_at, attempted_by, clock_timestamp(),
               'cancelled', attempt, max_attempts, timeout_ms, priority, queue, kind, args, meta, tags, errors, key,
               unique_key
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

-- Ends a job that waits: true. False when it has ended already, or is executing: then its node is asked to stop it, and it
-- ends as cancelled unless it completes first.
CREATE OR REPLACE FUNCTION @schema@.cancel(id bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    done text;
BEGIN
    done := @schema@.cancel_live(cancel.id);
    IF done IS NULL THEN
        PERFORM @schema@.state_of('cancel', cancel.id);
    END IF;
    RETURN coalesce(done = 'cancelled', false);
END
$$;

-- Housekeeping: requests that no running attempt answers to any more. The job that has ended needs none; one that waits
-- or runs again (its attempt ended while the request was under way) is cancelled now. Returns how many were.
CREATE FUNCTION @schema@.cancel_again() RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off AS $$
DECLARE
    request record;
    again int := 0;
BEGIN
    FOR request IN
        DELETE FROM @schema@.cancels c
         USING (SELECT r.job_id, r.attempt, r.node_id, j.id IS NOT NULL AS live
                  FROM @schema@.cancels r
                  LEFT JOIN @schema@.jobs j ON j.id = r.job_id
                 WHERE j.id IS NULL OR j.state <> 'executing' OR j.attempt <> r.attempt
                       OR coalesce(j.attempted_by, 0) <> r.node_id
                   FOR UPDATE OF r SKIP LOCKED) stale
         WHERE c.job_id = stale.job_id AND c.attempt = stale.attempt AND c.node_id = stale.node_id
        RETURNING c.job_id, stale.live
    LOOP
        IF request.live AND @schema@.cancel_live(request.job_id) IS NOT NULL THEN
            again := again + 1;
        END IF;
    END LOOP;
    RETURN again;
END
$$;

-- As before, and: the attempt is noted, which begins a new count of crashes; a request to cancel that was left over does not
-- reach the new attempt.
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
           retried_attempt = attempt
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
                               retried_attempt)
    VALUES (old.id, old.inserted_at, old.attempted_at, old.attempted_by, old.attempt,
            greatest(old.max_attempts, old.attempt + 1), old.timeout_ms, old.priority, old.queue, old.kind,
            old.args, old.meta, old.tags, old.errors, old.key, old.unique_key, old.attempt)
    ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'jobq.retry: job % has the unique key %, which another live job holds', retry.id,
            to_json(old.unique_key) USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN true;
END
$$;
