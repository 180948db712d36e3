-- jobq, migration 2: the functions that any language calls, and who may call them.
--
-- SQLSTATEs, so that a client can tell them apart: 22023 (invalid_parameter_value) an argument is wrong, P0002
-- (no_data_found) no job has that id, 55000 (object_not_in_prerequisite_state) the job's state forbids it.
--
-- Functions that look a row up run with enable_seqscan = off: a plan made while the table was empty would
-- otherwise read dead rows one after another ever after. Rows are joined by id with `j.id = ANY (ARRAY[a.id])`: see
-- jobqd/sql/README.md.

-- Whether a JSON value is there and is no int.
CREATE FUNCTION @schema@.json_is_no_int(value jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN pg_catalog.jsonb_typeof(value) <> 'number' THEN true
                WHEN value IS NULL THEN false
                ELSE value::numeric NOT BETWEEN -2147483648 AND 2147483647 OR value::numeric % 1 <> 0 END
$$;

-- Which key of a job is none of enqueue's arguments.
CREATE FUNCTION @schema@.json_unknown_key_text(job jsonb) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ' has an unknown key ' || to_json(min(unknown.key)) || ': allowed are kind, args, queue, priority,'
           ' scheduled_at, max_attempts, key, unique_key, tags, meta and timeout_ms'
      FROM jsonb_object_keys(job
           - '{kind,args,queue,priority,scheduled_at,max_attempts,key,unique_key,tags,meta,timeout_ms}'::text[]) AS unknown (key)
$$;

-- The first fault of one element of enqueue_many's array, to be put behind `jobs[i]`; NULL when there is none.
-- A scheduled_at that is no time at all is not found here: the cast itself raises.
CREATE FUNCTION @schema@.json_job_fault(job jsonb) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN pg_catalog.jsonb_typeof(job) <> 'object'
            THEN ' must be a JSON object, got ' || pg_catalog.left(job::text, 60)
        WHEN job - '{kind,args,queue,priority,scheduled_at,max_attempts,key,unique_key,tags,meta,timeout_ms}'::text[]
             <> '{}'
            THEN @schema@.json_unknown_key_text(job)
        WHEN NOT job ? 'kind' THEN '.kind is missing'
        WHEN pg_catalog.jsonb_typeof(job -> 'kind') <> 'string'
            THEN '.' || @schema@.job_fault_text('kind', job -> 'kind')
        WHEN pg_catalog.jsonb_typeof(job -> 'queue') <> 'string'
            THEN '.' || @schema@.job_fault_text('queue', job -> 'queue')
        WHEN @schema@.json_is_no_int(job -> 'priority')
            THEN '.' || @schema@.job_fault_text('priority', job -> 'priority')
        WHEN pg_catalog.jsonb_typeof(job -> 'scheduled_at') NOT IN ('string', 'null')
            THEN '.' || @schema@.job_fault_text('scheduled_at', job -> 'scheduled_at')
        WHEN @schema@.json_is_no_int(job -> 'max_attempts')
            THEN '.' || @schema@.job_fault_text('max_attempts', job -> 'max_attempts')
        WHEN pg_catalog.jsonb_typeof(job -> 'key') NOT IN ('string', 'null')
            THEN '.' || @schema@.job_fault_text('key', job -> 'key')
        WHEN pg_catalog.jsonb_typeof(job -> 'unique_key') NOT IN ('string', 'null')
            THEN '.' || @schema@.job_fault_text('unique_key', job -> 'unique_key')
        WHEN pg_catalog.jsonb_typeof(job -> 'tags') <> 'array'
             OR pg_catalog.jsonb_path_exists(job -> 'tags', 'strict $[*] ? (@.type() != "string")')
            THEN '.' || @schema@.job_fault_text('tags', job -> 'tags')
        WHEN @schema@.json_is_no_int(nullif(job -> 'timeout_ms', 'null'))
            THEN '.' || @schema@.job_fault_text('timeout_ms', job -> 'timeout_ms')
        ELSE '.' || @schema@.job_fault(job ->> 'kind', coalesce(job -> 'args', '{}'),
                coalesce(job ->> 'queue', 'default'), coalesce((job -> 'priority')::int, 0),
                (job ->> 'scheduled_at')::timestamptz, coalesce((job -> 'max_attempts')::int, 20),
                job ->> 'key', job ->> 'unique_key', '{}', coalesce(job -> 'meta', '{}'),
                nullif(job -> 'timeout_ms', 'null')::int)
    END
$$;

-- Adds a job and returns its id; with the unique_key of a live job, adds nothing and returns that job's id.
-- SECURITY DEFINER for that look-up: an enqueuer may not read the jobs.
CREATE FUNCTION @schema@.enqueue(kind text, args jsonb DEFAULT '{}', queue text DEFAULT 'default',
    priority int DEFAULT 0, scheduled_at timestamptz DEFAULT NULL, max_attempts int DEFAULT 20,
    key text DEFAULT NULL, unique_key text DEFAULT NULL, tags text[] DEFAULT '{}',
    meta jsonb DEFAULT '{}', timeout_ms int DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    fault text := @schema@.job_fault(enqueue.kind, enqueue.args, enqueue.queue, enqueue.priority,
                                     enqueue.scheduled_at, enqueue.max_attempts, enqueue.key,
                                     enqueue.unique_key, enqueue.tags, enqueue.meta, enqueue.timeout_ms);
    job_id bigint;
BEGIN
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION 'jobq.enqueue: %', fault USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF enqueue.unique_key IS NULL THEN
        INSERT INTO @schema@.jobs (kind, args, queue, priority, scheduled_at, max_attempts, key, tags, meta,
                                   timeout_ms)
        VALUES (enqueue.kind, enqueue.args, enqueue.queue, enqueue.priority,
                coalesce(enqueue.scheduled_at, now()), enqueue.max_attempts, enqueue.key, enqueue.tags,
                enqueue.meta, enqueue.timeout_ms)
        RETURNING id INTO job_id;
        RETURN job_id;
    END IF;
    -- The holder of the key may end between our insert's refusal and our look: then we try again. Each turn
    -- needs another job to come and go, so the loop ends.
    LOOP
        INSERT INTO @schema@.jobs (kind, args, queue, priority, scheduled_at, max_attempts, key, unique_key,
                                   tags, meta, timeout_ms)
        VALUES (enqueue.kind, enqueue.args, enqueue.queue, enqueue.priority,
                coalesce(enqueue.scheduled_at, now()), enqueue.max_attempts, enqueue.key, enqueue.unique_key,
                enqueue.tags, enqueue.meta, enqueue.timeout_ms)
        ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL DO NOTHING
        RETURNING id INTO job_id;
        IF job_id IS NULL THEN
            SELECT id INTO job_id FROM @schema@.jobs WHERE unique_key = enqueue.unique_key;
        END IF;
        IF job_id IS NOT NULL THEN
            RETURN job_id;
        END IF;
    END LOOP;
END
$$;

-- Raises the error for the first wrong element of enqueue_many's array. Only called when there is one: it
-- looks at each element by itself, to find a scheduled_at whose cast fails.
CREATE FUNCTION @schema@.raise_json_job_fault(jobs jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    i bigint;
    job jsonb;
    fault text;
BEGIN
    FOR i, job IN SELECT e.ord - 1, e.job FROM jsonb_array_elements(jobs) WITH ORDINALITY e (job, ord) LOOP
        BEGIN
            fault := @schema@.json_job_fault(job);
        EXCEPTION WHEN data_exception THEN
            fault := '.' || @schema@.job_fault_text('scheduled_at', job -> 'scheduled_at');
        END;
        IF fault IS NOT NULL THEN
            RAISE EXCEPTION 'jobq.enqueue_many: jobs[%]%', i, fault
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END LOOP;
END
$$;

-- The elements of enqueue_many's array, already checked, as rows. Inlined.
CREATE FUNCTION @schema@.json_jobs(jobs jsonb) RETURNS TABLE (ord bigint, kind text, args jsonb, queue text,
    priority int, scheduled_at timestamptz, max_attempts int, key text, unique_key text, tags text[],
    meta jsonb, timeout_ms int) LANGUAGE sql STABLE AS $$
    SELECT e.ord, e.job ->> 'kind', coalesce(e.job -> 'args', '{}'), coalesce(e.job ->> 'queue', 'default'),
           coalesce((e.job -> 'priority')::int, 0),
           coalesce((e.job ->> 'scheduled_at')::timestamptz, pg_catalog.now()),
           coalesce((e.job -> 'max_attempts')::int, 20), e.job ->> 'key', e.job ->> 'unique_key',
           CASE WHEN e.job ? 'tags'
                THEN ARRAY(SELECT pg_catalog.jsonb_array_elements_text(e.job -> 'tags')) ELSE '{}' END,
           coalesce(e.job -> 'meta', '{}'), nullif(e.job -> 'timeout_ms', 'null')::int
      FROM pg_catalog.jsonb_array_elements(jobs) WITH ORDINALITY e (job, ord)
$$;

-- The jobs of enqueue_many when some have a unique_key. Ids and positions are taken in the order of the array;
-- the rows are inserted in the order of their keys, so that two callers with the same keys do not deadlock.
CREATE FUNCTION @schema@.enqueue_many_unique(jobs jsonb) RETURNS SETOF bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    n CONSTANT int := jsonb_array_length(jobs);
    new_ids CONSTANT bigint[] :=
        ARRAY(SELECT nextval('@schema@.jobs_id_seq') FROM generate_series(1, n));
    ids bigint[] := array_fill(NULL::bigint, ARRAY[n]);
    positions bigint[];
BEGIN
    LOOP
        -- Anew each time: a position must be taken in the order of the inserts' snapshots, not kept for later.
        positions := ARRAY(SELECT @schema@.next_position() FROM generate_series(1, n));
        INSERT INTO @schema@.jobs (id, position, kind, args, queue, priority, scheduled_at, max_attempts, key,
                                   unique_key, tags, meta, timeout_ms)
        SELECT new_ids[j.ord], positions[j.ord], j.kind, j.args, j.queue, j.priority, j.scheduled_at,
               j.max_attempts, j.key, j.unique_key, j.tags, j.meta, j.timeout_ms
          FROM @schema@.json_jobs(enqueue_many_unique.jobs) j
         WHERE ids[j.ord] IS NULL
         ORDER BY j.unique_key, j.ord
        ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL DO NOTHING;

        ids := ARRAY(SELECT coalesce(ids[j.ord], CASE WHEN j.unique_key IS NULL THEN new_ids[j.ord] ELSE live.id END)
                       FROM @schema@.json_jobs(enqueue_many_unique.jobs) j
                       LEFT JOIN @schema@.jobs live
                              ON live.unique_key = j.unique_key AND live.unique_key IS NOT NULL
                      ORDER BY j.ord);
        -- As in enqueue: a holder that ended between the two statements leaves a gap, for another turn.
        EXIT WHEN array_position(ids, NULL) IS NULL;
    END LOOP;
    RETURN QUERY SELECT unnest(ids);
END
$$;

-- Adds an array of objects whose keys are enqueue's argument names; returns the ids in the array's order. All or
-- nothing: one wrong element, and none is added.
CREATE FUNCTION @schema@.enqueue_many(jobs jsonb) RETURNS SETOF bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF jsonb_typeof(enqueue_many.jobs) IS DISTINCT FROM 'array' THEN
        RAISE EXCEPTION 'jobq.enqueue_many: jobs must be a JSON array of objects, got %',
            coalesce(left(enqueue_many.jobs::text, 60), 'null') USING ERRCODE = 'invalid_parameter_value';
    END IF;
    BEGIN
        IF EXISTS (SELECT FROM jsonb_array_elements(enqueue_many.jobs) e (job)
                    WHERE @schema@.json_job_fault(e.job) IS NOT NULL) THEN
            PERFORM @schema@.raise_json_job_fault(enqueue_many.jobs);
        END IF;
    EXCEPTION WHEN invalid_datetime_format OR datetime_field_overflow OR invalid_parameter_value THEN
        PERFORM @schema@.raise_json_job_fault(enqueue_many.jobs);
        RAISE;
    END;
    IF jsonb_path_exists(enqueue_many.jobs, '$[*].unique_key ? (@ != null)') THEN
        RETURN QUERY SELECT * FROM @schema@.enqueue_many_unique(enqueue_many.jobs);
        RETURN;
    END IF;
    RETURN QUERY
        INSERT INTO @schema@.jobs (kind, args, queue, priority, scheduled_at, max_attempts, key, tags, meta,
                                   timeout_ms)
        SELECT j.kind, j.args, j.queue, j.priority, j.scheduled_at, j.max_attempts, j.key, j.tags, j.meta,
               j.timeout_ms
          FROM @schema@.json_jobs(enqueue_many.jobs) j ORDER BY j.ord
        RETURNING id;
END
$$;

-- The state of a job, live or finished; an error when no job has that id.
CREATE FUNCTION @schema@.state_of(caller text, id bigint) RETURNS @schema@.job_state
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    found_state @schema@.job_state;
BEGIN
    IF state_of.id IS NULL THEN
        RAISE EXCEPTION 'jobq.%: id must be a job''s id, got null', caller
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- One snapshot over both tables: a job on its way from one to the other is seen in one of them.
    SELECT state INTO found_state FROM @schema@.all_jobs WHERE id = state_of.id;
    IF found_state IS NULL THEN
        RAISE EXCEPTION 'jobq.%: no job has the id %', caller, state_of.id USING ERRCODE = 'no_data_found';
    END IF;
    RETURN found_state;
END
$$;

-- Ends a job that waits: true. False when it is executing or has ended already.
CREATE FUNCTION @schema@.cancel(id bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    WITH gone AS (
        DELETE FROM @schema@.jobs
         WHERE id = cancel.id AND state IN ('scheduled', 'available', 'retryable', 'suspended')
        RETURNING *)
    INSERT INTO @schema@.finished_jobs (id, inserted_at, scheduled_at, attempted_at, attempted_by, finished_at,
           state, attempt, max_attempts, timeout_ms, priority, queue, kind, args, meta, tags, errors, key,
           unique_key)
    SELECT id, inserted_at, scheduled_at, attempted_at, attempted_by, clock_timestamp(),
           'cancelled', attempt, max_attempts, timeout_ms, priority, queue, kind, args, meta, tags, errors, key,
           unique_key
      FROM gone;
    IF FOUND THEN
        RETURN true;
    END IF;
    PERFORM @schema@.state_of('cancel', cancel.id);
    RETURN false;
END
$$;

-- Makes a job that has ended available again, with its id and its errors, and one that waits for its time at
-- once: true. False when it is available, executing or suspended.
CREATE FUNCTION @schema@.retry(id bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    old @schema@.finished_jobs;
    of_queue text;
BEGIN
    UPDATE @schema@.jobs
       SET state = 'available', position = @schema@.next_position(), scheduled_at = now()
     WHERE id = retry.id AND state IN ('scheduled', 'retryable')
    RETURNING queue INTO of_queue;
    IF FOUND THEN
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
    -- The insert's trigger wakes the nodes.
    INSERT INTO @schema@.jobs (id, inserted_at, attempted_at, attempted_by, attempt, max_attempts, timeout_ms,
                               priority, queue, kind, args, meta, tags, errors, key, unique_key)
    VALUES (old.id, old.inserted_at, old.attempted_at, old.attempted_by, old.attempt,
            greatest(old.max_attempts, old.attempt + 1), old.timeout_ms, old.priority, old.queue, old.kind,
            old.args, old.meta, old.tags, old.errors, old.key, old.unique_key)
    ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'jobq.retry: job % has the unique key %, which another live job holds', retry.id,
            to_json(old.unique_key) USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN true;
END
$$;

-- For a handler: completes its job in its own transaction, which makes the job's effects and its end one. Refused
-- unless that very attempt is executing, so a handler that was given up cannot commit.
CREATE FUNCTION @schema@.complete(id bigint, attempt int, result jsonb DEFAULT NULL) RETURNS void
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
