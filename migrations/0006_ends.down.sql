-- Undoes migration 6. Jobs that have an expiry run as if they had none.

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
           unique_key, result)
    SELECT id, inserted_at, scheduled_at, attempted_at, attempted_by, clock_timestamp(),
           extract(epoch FROM clock_timestamp() - attempted_at) * 1000000, 'completed', attempt, max_attempts,
           timeout_ms, priority, queue, kind, args, meta, tags, errors, key, unique_key, complete.result
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

-- A column cannot be taken out of a view in place.
DROP VIEW @schema@.all_jobs;
CREATE VIEW @schema@.all_jobs AS
    SELECT id, state, queue, kind, args, meta, tags, priority, position, attempt, max_attempts, errors,
           key, unique_key, timeout_ms, inserted_at, scheduled_at, attempted_at, attempted_by,
           NULL::timestamptz AS finished_at, NULL::jsonb AS result,
           NULL::bigint AS run_us, NULL::bigint AS cpu_us, NULL::bigint AS max_rss_kb
      FROM @schema@.jobs
    UNION ALL
    SELECT id, state, queue, kind, args, meta, tags, priority, position, attempt, max_attempts, errors,
           key, unique_key, timeout_ms, inserted_at, scheduled_at, attempted_at, attempted_by,
           finished_at, result, run_us, cpu_us, max_rss_kb
      FROM @schema@.finished_jobs;

ALTER TABLE @schema@.cancels DROP COLUMN forget;
ALTER TABLE @schema@.finished_jobs DROP COLUMN expires_at;
DROP INDEX @schema@.jobs_expires;
ALTER TABLE @schema@.jobs DROP COLUMN expires_at;

-- Wakes the nodes that wait idle for these queues. NOTIFY takes a lock for the whole server at commit,
-- so nobody is notified who does not wait.
CREATE OR REPLACE FUNCTION @schema@.wake(queues text[]) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_catalog.pg_notify('@channel@', 'queue ' || q.queue)
      FROM (SELECT DISTINCT i.queue FROM @schema@.idle i WHERE i.queue = ANY ($1)) q
$$;

-- Makes the partitions that are missing of `days` days from from_day on; returns how many. A partition is made as a
-- table and then attached, which takes no ACCESS EXCLUSIVE lock on the parents. What the default
-- partition holds of that day moves over in the same transaction.
CREATE OR REPLACE FUNCTION @schema@.create_partitions(from_day date, days int) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO'
SET lock_timeout = '200ms' AS $$
DECLARE
    made int := 0;
    parent text;
    partition text;
    day date;
BEGIN
    IF from_day IS NULL OR NOT isfinite(from_day) THEN
        RAISE EXCEPTION 'jobq.create_partitions: from_day must be a date, got %', coalesce(from_day::text, 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF days IS NULL OR days NOT BETWEEN 0 AND 366 THEN
        RAISE EXCEPTION 'jobq.create_partitions: days must be 0 to 366, got %', coalesce(days::text, 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR parent, day IN
        SELECT p.name, from_day + n.n
          FROM unnest(ARRAY['finished_completed', 'finished_failed']) p (name), generate_series(0, days - 1) n (n)
    LOOP
        partition := parent || to_char(day, '"_p"YYYYMMDD');
        CONTINUE WHEN to_regclass(format('@schema@.%I', partition)) IS NOT NULL;
        -- One maker at a time. The default partition is locked in the end by ATTACH anyway: from the start, so
        -- that nothing comes into it behind the move, and no lock is raised.
        EXECUTE format('LOCK TABLE ONLY @schema@.%I IN SHARE UPDATE EXCLUSIVE MODE', parent);
        CONTINUE WHEN to_regclass(format('@schema@.%I', partition)) IS NOT NULL;
        EXECUTE format('LOCK TABLE @schema@.%I IN ACCESS EXCLUSIVE MODE', parent || '_default');
        EXECUTE format('CREATE TABLE @schema@.%I (LIKE @schema@.%I INCLUDING ALL)', partition, parent);
        EXECUTE format('ALTER TABLE @schema@.%I REPLICA IDENTITY FULL', partition);
        EXECUTE format('WITH moved AS (DELETE FROM @schema@.%I WHERE finished_at >= %L AND finished_at < %L RETURNING *) '
                       'INSERT INTO @schema@.%I SELECT * FROM moved',
                       parent || '_default', day::timestamptz, (day + 1)::timestamptz, partition);
        EXECUTE format('ALTER TABLE @schema@.%I ATTACH PARTITION @schema@.%I FOR VALUES FROM (%L) TO (%L)',
                       parent, partition, day::timestamptz, (day + 1)::timestamptz);
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;

-- Drops the oldest partition that ended before its keep, or, when there is none, deletes up to 10,000 rows that old
-- from the default partitions. Returns 1 when there is more to do, in another transaction, else 0: a DROP
-- locks the parent until the commit.
CREATE OR REPLACE FUNCTION @schema@.drop_partitions(keep_completed interval, keep_failed interval) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO'
SET lock_timeout = '200ms' AS $$
DECLARE
    batch CONSTANT int := 10000;
    old_partitions text[];
    parent text;
    oldest_kept timestamptz;
    deleted int;
    more int := 0;
BEGIN
    IF keep_completed IS NULL OR keep_completed < interval '0' THEN
        RAISE EXCEPTION 'jobq.drop_partitions: keep_completed must be an interval of 0 or more, got %',
            coalesce(keep_completed::text, 'null') USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF keep_failed IS NULL OR keep_failed < interval '0' THEN
        RAISE EXCEPTION 'jobq.drop_partitions: keep_failed must be an interval of 0 or more, got %',
            coalesce(keep_failed::text, 'null') USING ERRCODE = 'invalid_parameter_value';
    END IF;

    old_partitions := ARRAY(
        SELECT c.relname
          FROM pg_inherits i
          JOIN pg_class c ON c.oid = i.inhrelid
          JOIN (VALUES ('@schema@.finished_completed'::regclass, now() - keep_completed),
                       ('@schema@.finished_failed'::regclass, now() - keep_failed)) AS k (parent, oldest_kept)
            ON k.parent = i.inhparent
         WHERE c.relname ~ '^finished_(completed|failed)_p[0-9]{8}$'
           AND to_date(right(c.relname, 8), 'YYYYMMDD') + 1 <= k.oldest_kept
         ORDER BY right(c.relname, 8), c.relname);
    IF cardinality(old_partitions) > 0 THEN
        EXECUTE format('DROP TABLE @schema@.%I', old_partitions[1]);
        RETURN CASE WHEN cardinality(old_partitions) > 1 THEN 1 ELSE 0 END;
    END IF;

    FOR parent, oldest_kept IN
        SELECT k.parent, k.oldest_kept
          FROM (VALUES ('finished_completed', now() - keep_completed),
                       ('finished_failed', now() - keep_failed)) AS k (parent, oldest_kept)
    LOOP
        EXECUTE format('DELETE FROM @schema@.%1$I WHERE ctid = ANY (ARRAY('
                       'SELECT ctid FROM @schema@.%1$I WHERE finished_at < $1 LIMIT $2))', parent || '_default')
          USING oldest_kept, batch;
        GET DIAGNOSTICS deleted = ROW_COUNT;
        IF deleted = batch THEN
            more := 1;
        END IF;
    END LOOP;
    RETURN more;
END
$$;

DROP FUNCTION @schema@._delete_apart(text, tid[]);
DROP FUNCTION @schema@._is_passing(text);
DROP FUNCTION @schema@._add_error(jsonb, jsonb);
DROP FUNCTION @schema@._error_entry(jsonb);
DROP FUNCTION @schema@._cut(text, int, int);
DROP FUNCTION @schema@._crashes(jsonb, int);
DROP FUNCTION @schema@._errors(jsonb);
DROP FUNCTION @schema@._content_fault(jsonb, jsonb, text);
DROP FUNCTION @schema@._readable(jsonb, bigint);
DROP FUNCTION @schema@._shown(jsonb, boolean);
DROP FUNCTION @schema@._json_size(jsonb, bigint);
DROP FUNCTION @schema@._long_number(jsonb, numeric, int);
DROP TABLE @schema@.settings;
DROP FUNCTION @schema@._notify(text);
