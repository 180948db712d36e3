-- Enqueue, one job or many.
--
-- SQLSTATEs, so that a client can tell errors apart: 22023 (invalid_parameter_value) an argument is wrong, P0002
-- (no_data_found) no job has that id, 55000 (object_not_in_prerequisite_state) the state of the job forbids it.
--
-- Functions that look up a row run with enable_seqscan = off: a plan made while the table was empty would otherwise read
-- dead rows sequentially ever after. Rows are joined by id with `j.id = ANY (ARRAY[a.id])`: see jobqd/sql/README.md.

-- job: the row to add; its id and its position are used if it has them. conflict: null (added), ignored or replaced.
--
-- The primary key of _uniques decides between two that come at the same time: the second waits until the first has committed
-- or rolled back. A look without a lock comes first, so that many callers that conflict do not wait for each other. A caller
-- that would take a key over from a job that does not conflict locks the row, looks again, and only then takes it. An
-- expired job conflicts with no new one, whether or not the leader has cancelled it. Each turn needs a commit of another
-- session, or ends an expired job, so the loop ends.
CREATE OR REPLACE FUNCTION @schema@._add_job(subject text, job @schema@.jobs, unique_by jsonb, on_conflict text, "replace" jsonb,
    OUT id bigint, OUT conflict text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    hash CONSTANT bytea := CASE WHEN unique_by IS NOT NULL
        THEN @schema@._unique_hash(job.kind, job.queue, job.args, job.meta, unique_by) END;
    holder record;
    conflicting record;
    its_state @schema@.job_state;
BEGIN
    FOR turn IN 1 .. 1000 LOOP
        its_state := NULL;
        IF hash IS NOT NULL THEN
            SELECT u.job_id, u.held_at INTO holder FROM @schema@._uniques u WHERE u.key = hash;
            IF NOT FOUND THEN
                job.id := coalesce(job.id, nextval('@schema@.jobs_id_seq'));
                INSERT INTO @schema@._uniques (key, job_id) VALUES (hash, job.id) ON CONFLICT DO NOTHING;
                CONTINUE WHEN NOT FOUND;
            ELSE
                conflicting := @schema@._conflicting_state(holder.job_id, holder.held_at, unique_by);
                IF conflicting.state IS NULL OR conflicting.expired THEN
                    SELECT u.job_id, u.held_at INTO holder FROM @schema@._uniques u WHERE u.key = hash FOR UPDATE;
                    CONTINUE WHEN NOT FOUND;
                    conflicting := @schema@._conflicting_state(holder.job_id, holder.held_at, unique_by);
                    IF conflicting.expired THEN
                        PERFORM @schema@._expire_ids(ARRAY[holder.job_id]);
                        CONTINUE;
                    END IF;
                END IF;
                its_state := conflicting.state;
                IF its_state IS NULL THEN
                    job.id := coalesce(job.id, nextval('@schema@.jobs_id_seq'));
                    UPDATE @schema@._uniques u SET job_id = job.id, held_at = now() WHERE u.key = hash;
                END IF;
            END IF;
        END IF;

        IF its_state IS NULL THEN
            INSERT INTO @schema@.jobs (id, position, kind, args, queue, priority, scheduled_at, max_attempts, key,
                                       unique_key, tags, meta, timeout_ms, expires_at)
            VALUES (coalesce(job.id, nextval('@schema@.jobs_id_seq')), coalesce(job.position, @schema@._next_position()),
                    job.kind, job.args, job.queue, job.priority, job.scheduled_at, job.max_attempts, job.key,
                    job.unique_key, job.tags, job.meta, job.timeout_ms, job.expires_at)
            ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL DO NOTHING
            RETURNING jobs.id INTO _add_job.id;
            IF FOUND THEN
                RETURN;
            END IF;
            SELECT j.id AS job_id, j.state, @schema@._has_expired(j.state, j.attempt, j.expires_at) AS expired INTO holder
              FROM @schema@.jobs j WHERE j.unique_key = job.unique_key;
            CONTINUE WHEN NOT FOUND; -- it has ended between the two statements
            IF holder.expired THEN
                PERFORM @schema@._expire_ids(ARRAY[holder.job_id]);
                CONTINUE;
            END IF;
            its_state := holder.state;
        END IF;

        conflict := @schema@._conflict_answer(subject, holder.job_id, its_state, job, unique_by, on_conflict, "replace");
        IF conflict IS NOT NULL THEN
            id := holder.job_id;
            RETURN;
        END IF;
    END LOOP;
    RAISE EXCEPTION 'jobq.%: the job cannot be added: a trigger or rule on jobs keeps rows from being changed', subject
        USING ERRCODE = 'triggered_action_exception';
END
$$;
COMMENT ON FUNCTION @schema@._add_job IS
    'Adds one job, or deals with the job that it conflicts with; the arguments have been checked.';

-- SECURITY DEFINER for the look-up: an enqueuer may not read the jobs.
CREATE OR REPLACE FUNCTION @schema@.enqueue(kind text, args jsonb DEFAULT '{}', queue text DEFAULT 'default',
    priority int DEFAULT 0, scheduled_at timestamptz DEFAULT NULL, max_attempts int DEFAULT NULL,
    key text DEFAULT NULL, unique_key text DEFAULT NULL, tags text[] DEFAULT '{}',
    meta jsonb DEFAULT '{}', timeout_ms int DEFAULT NULL, unique_by jsonb DEFAULT NULL,
    on_conflict text DEFAULT 'ignore', "replace" jsonb DEFAULT NULL, expires_at timestamptz DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    -- Not by _queue_attempts: calling it costs half as much as everything else here.
    attempts CONSTANT int := coalesce(enqueue.max_attempts,
        (SELECT q.max_attempts FROM @schema@.queues q WHERE q.name = enqueue.queue), 20);
    fault text := @schema@._job_fault(enqueue.kind, enqueue.args, enqueue.queue, enqueue.priority,
                                     enqueue.scheduled_at, attempts, enqueue.key,
                                     enqueue.unique_key, enqueue.tags, enqueue.meta, enqueue.timeout_ms,
                                     enqueue.expires_at);
    job_id bigint;
BEGIN
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION 'jobq.enqueue: %', fault USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF enqueue.unique_key IS NULL AND enqueue.unique_by IS NULL AND enqueue.on_conflict = 'ignore'
       AND enqueue."replace" IS NULL THEN
        INSERT INTO @schema@.jobs (kind, args, queue, priority, scheduled_at, max_attempts, key, tags, meta,
                                   timeout_ms, expires_at)
        VALUES (enqueue.kind, enqueue.args, enqueue.queue, enqueue.priority,
                coalesce(enqueue.scheduled_at, now()), attempts, enqueue.key, enqueue.tags,
                enqueue.meta, enqueue.timeout_ms, enqueue.expires_at)
        RETURNING id INTO job_id;
        RETURN job_id;
    END IF;
    SELECT a.id INTO job_id
      FROM @schema@._enqueue_unique('enqueue', enqueue.kind, enqueue.args, enqueue.queue, enqueue.priority,
               enqueue.scheduled_at, attempts, enqueue.key, enqueue.unique_key, enqueue.tags,
               enqueue.meta, enqueue.timeout_ms, enqueue.unique_by, enqueue.on_conflict, enqueue."replace",
               enqueue.expires_at) a;
    RETURN job_id;
END
$$;
COMMENT ON FUNCTION @schema@.enqueue IS
'Adds a job and returns its id. The job commits or vanishes with the caller''s transaction.
kind and queue are 1 to 128 bytes, key and unique_key 1 to 512 bytes. args and meta are JSON objects, together at most
max_job_bytes (table settings). priority is 0 (first) to 9, max_attempts 1 to 1000 (null: the queue''s, else 20), timeout_ms
1 to 2147483647 ms (null: the timeout of the queue).
The job is due at scheduled_at (null: now), and is cancelled if it has not begun by expires_at (null: never).
unique_key allows no second live job with that key; unique_by, an object with fields, keys, period (in seconds) and states,
compares parts of jobs instead.
If a job conflicts, on_conflict decides, and its id is returned: ignore adds nothing, replace gives that job the values of
the fields listed in "replace" (an array, or an object of arrays by state), raise is an error.
SQLSTATEs: 22023 an argument is wrong, and the message names it; 23505 the job is not unique, with on_conflict raise.';

CREATE OR REPLACE FUNCTION @schema@.try_enqueue(kind text, args jsonb DEFAULT '{}', queue text DEFAULT 'default',
    priority int DEFAULT 0, scheduled_at timestamptz DEFAULT NULL, max_attempts int DEFAULT NULL,
    key text DEFAULT NULL, unique_key text DEFAULT NULL, tags text[] DEFAULT '{}',
    meta jsonb DEFAULT '{}', timeout_ms int DEFAULT NULL, unique_by jsonb DEFAULT NULL,
    on_conflict text DEFAULT 'ignore', "replace" jsonb DEFAULT NULL, expires_at timestamptz DEFAULT NULL)
RETURNS TABLE (id bigint, conflict text)
LANGUAGE plpgsql SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    -- Not by _queue_attempts: calling it costs half as much as everything else here.
    attempts CONSTANT int := coalesce(try_enqueue.max_attempts,
        (SELECT q.max_attempts FROM @schema@.queues q WHERE q.name = try_enqueue.queue), 20);
    fault text := @schema@._job_fault(try_enqueue.kind, try_enqueue.args, try_enqueue.queue, try_enqueue.priority,
                                     try_enqueue.scheduled_at, attempts, try_enqueue.key,
                                     try_enqueue.unique_key, try_enqueue.tags, try_enqueue.meta,
                                     try_enqueue.timeout_ms, try_enqueue.expires_at);
BEGIN
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION 'jobq.try_enqueue: %', fault USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN QUERY
        SELECT a.id, a.conflict
          FROM @schema@._enqueue_unique('try_enqueue', try_enqueue.kind, try_enqueue.args, try_enqueue.queue,
                   try_enqueue.priority, try_enqueue.scheduled_at, attempts, try_enqueue.key,
                   try_enqueue.unique_key, try_enqueue.tags, try_enqueue.meta, try_enqueue.timeout_ms,
                   try_enqueue.unique_by, try_enqueue.on_conflict, try_enqueue."replace",
                   try_enqueue.expires_at) a;
END
$$;
COMMENT ON FUNCTION @schema@.try_enqueue IS
'Adds a job like enqueue(), with the same arguments and errors. Returns a row that also says whether the job conflicted.
id is the job''s id, or that of the existing job. conflict is null (the job was added), ignored or replaced.';

CREATE OR REPLACE FUNCTION @schema@._json_is_no_int(value jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN pg_catalog.jsonb_typeof(value) <> 'number' THEN true
                WHEN value IS NULL THEN false
                ELSE value::numeric NOT BETWEEN -2147483648 AND 2147483647 OR value::numeric % 1 <> 0 END
$$;
COMMENT ON FUNCTION @schema@._json_is_no_int IS 'Whether a JSON value is present and is not an int.';

CREATE OR REPLACE FUNCTION @schema@._json_unknown_key_text(job jsonb) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ' has an unknown key ' || to_json(min(unknown.key)) || ': allowed are kind, args, queue, priority,'
           ' scheduled_at, max_attempts, key, unique_key, tags, meta, timeout_ms, unique_by, on_conflict, replace'
           ' and expires_at'
      FROM jsonb_object_keys(job
           - '{kind,args,queue,priority,scheduled_at,max_attempts,key,unique_key,tags,meta,timeout_ms,unique_by,on_conflict,replace,expires_at}'::text[])
           AS unknown (key)
$$;
COMMENT ON FUNCTION @schema@._json_unknown_key_text IS
    'The error text for a key of a job that is not an argument of enqueue.';

-- A time must name its zone, and a null max_attempts counts as absent. Text that is no time at all is not found here: its
-- cast raises the error.
CREATE OR REPLACE FUNCTION @schema@._json_job_fault(job jsonb) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN pg_catalog.jsonb_typeof(job) <> 'object'
            THEN ' must be a JSON object, got ' || @schema@._shown(job)
        WHEN job - '{kind,args,queue,priority,scheduled_at,max_attempts,key,unique_key,tags,meta,timeout_ms,unique_by,on_conflict,replace,expires_at}'::text[]
             <> '{}'
            THEN @schema@._json_unknown_key_text(job)
        WHEN NOT job ? 'kind' THEN '.kind is missing'
        WHEN pg_catalog.jsonb_typeof(job -> 'args') <> 'object'
            THEN '.' || @schema@._job_fault_text('args', job -> 'args')
        WHEN pg_catalog.jsonb_typeof(job -> 'meta') <> 'object'
            THEN '.' || @schema@._job_fault_text('meta', job -> 'meta')
        WHEN pg_catalog.jsonb_typeof(job -> 'kind') <> 'string'
            THEN '.' || @schema@._job_fault_text('kind', job -> 'kind')
        WHEN pg_catalog.jsonb_typeof(job -> 'queue') <> 'string'
            THEN '.' || @schema@._job_fault_text('queue', job -> 'queue')
        WHEN @schema@._json_is_no_int(job -> 'priority')
            THEN '.' || @schema@._job_fault_text('priority', job -> 'priority')
        WHEN pg_catalog.jsonb_typeof(job -> 'scheduled_at') NOT IN ('string', 'null')
            THEN '.' || @schema@._job_fault_text('scheduled_at', job -> 'scheduled_at')
        WHEN pg_catalog.jsonb_typeof(job -> 'expires_at') NOT IN ('string', 'null')
            THEN '.' || @schema@._job_fault_text('expires_at', job -> 'expires_at')
        WHEN @schema@._json_is_no_int(nullif(job -> 'max_attempts', 'null'))
            THEN '.' || @schema@._job_fault_text('max_attempts', job -> 'max_attempts')
        WHEN pg_catalog.jsonb_typeof(job -> 'key') NOT IN ('string', 'null')
            THEN '.' || @schema@._job_fault_text('key', job -> 'key')
        WHEN pg_catalog.jsonb_typeof(job -> 'unique_key') NOT IN ('string', 'null')
            THEN '.' || @schema@._job_fault_text('unique_key', job -> 'unique_key')
        WHEN pg_catalog.jsonb_typeof(job -> 'tags') <> 'array'
             OR pg_catalog.jsonb_path_exists(job -> 'tags', 'strict $[*] ? (@.type() != "string")')
            THEN '.' || @schema@._job_fault_text('tags', job -> 'tags')
        WHEN @schema@._json_is_no_int(nullif(job -> 'timeout_ms', 'null'))
            THEN '.' || @schema@._job_fault_text('timeout_ms', job -> 'timeout_ms')
        ELSE coalesce(
            '.' || @schema@._job_fault(job ->> 'kind', '{}',
                coalesce(job ->> 'queue', 'default'), coalesce((job -> 'priority')::int, 0),
                (job ->> 'scheduled_at')::timestamptz, coalesce(nullif(job -> 'max_attempts', 'null')::int, 20),
                job ->> 'key', job ->> 'unique_key', '{}', '{}',
                nullif(job -> 'timeout_ms', 'null')::int, (job ->> 'expires_at')::timestamptz),
            CASE WHEN job ?| '{scheduled_at,expires_at}'
                 THEN '.' || coalesce(@schema@._zone_fault(job, 'scheduled_at'), @schema@._zone_fault(job, 'expires_at')) END,
            CASE WHEN pg_catalog.pg_column_size(job) > 500
                      AND (pg_catalog.pg_column_size(job) > 8192 OR pg_catalog.octet_length(job::text) > 4000)
                 THEN '.' || @schema@._content_fault(job -> 'args', job -> 'meta') END,
            CASE WHEN job ?| '{unique_by,on_conflict,replace}'
                 THEN '.' || @schema@._conflict_fault(job ->> 'unique_key', nullif(job -> 'unique_by', 'null'),
                        coalesce(job -> 'on_conflict', '"ignore"'), nullif(job -> 'replace', 'null')) END)
    END
$$;
COMMENT ON FUNCTION @schema@._json_job_fault IS
    'The first fault of one element of enqueue_many''s array, to follow jobs[i]; null: none.';

-- Call it only when there is one: it checks each element by itself, to find a time whose cast fails.
CREATE OR REPLACE FUNCTION @schema@._raise_json_job_fault(caller text, jobs jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    i bigint;
    job jsonb;
    fault text;
BEGIN
    FOR i, job IN SELECT e.ord - 1, e.job FROM jsonb_array_elements(jobs) WITH ORDINALITY e (job, ord) LOOP
        BEGIN
            fault := @schema@._json_job_fault(job);
        EXCEPTION WHEN data_exception THEN
            BEGIN
                PERFORM (job ->> 'scheduled_at')::timestamptz;
                fault := '.' || @schema@._job_fault_text('expires_at', job -> 'expires_at');
            EXCEPTION WHEN data_exception THEN
                fault := '.' || @schema@._job_fault_text('scheduled_at', job -> 'scheduled_at');
            END;
        END;
        IF fault IS NOT NULL THEN
            RAISE EXCEPTION 'jobq.%: jobs[%]%', caller, i, fault USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION @schema@._raise_json_job_fault IS 'Raises the error for the first wrong element of the array.';

CREATE OR REPLACE FUNCTION @schema@._check_jobs(caller text, jobs jsonb) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
    IF jsonb_typeof(jobs) IS DISTINCT FROM 'array' THEN
        RAISE EXCEPTION 'jobq.%: jobs must be a JSON array of objects, got %', caller,
            @schema@._shown(jobs) USING ERRCODE = 'invalid_parameter_value';
    END IF;
    BEGIN
        IF EXISTS (SELECT FROM jsonb_array_elements(jobs) e (job) WHERE @schema@._json_job_fault(e.job) IS NOT NULL) THEN
            PERFORM @schema@._raise_json_job_fault(caller, jobs);
        END IF;
    EXCEPTION WHEN data_exception THEN
        PERFORM @schema@._raise_json_job_fault(caller, jobs);
        RAISE;
    END;
    RETURN jsonb_path_exists(jobs, '$[*] ? (@.unique_key != null || @.unique_by != null)');
END
$$;
COMMENT ON FUNCTION @schema@._check_jobs IS
    'Checks the array of enqueue_many or try_enqueue_many; returns whether some of its jobs are to be unique.';

-- An absent max_attempts becomes the queue's, else 20. There is no SET clause, so that the function is inlined.
CREATE OR REPLACE FUNCTION @schema@._json_jobs(jobs jsonb) RETURNS TABLE (ord bigint, kind text, args jsonb, queue text,
    priority int, scheduled_at timestamptz, max_attempts int, key text, unique_key text, tags text[],
    meta jsonb, timeout_ms int, unique_by jsonb, on_conflict text, "replace" jsonb, expires_at timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT e.ord, e.job ->> 'kind', coalesce(e.job -> 'args', '{}'), coalesce(e.job ->> 'queue', 'default'),
           coalesce((e.job -> 'priority')::int, 0),
           coalesce((e.job ->> 'scheduled_at')::timestamptz, pg_catalog.now()),
           coalesce(nullif(e.job -> 'max_attempts', 'null')::int, q.max_attempts, 20), e.job ->> 'key', e.job ->> 'unique_key',
           CASE WHEN e.job ? 'tags'
                THEN ARRAY(SELECT pg_catalog.jsonb_array_elements_text(e.job -> 'tags')) ELSE '{}' END,
           coalesce(e.job -> 'meta', '{}'), nullif(e.job -> 'timeout_ms', 'null')::int,
           nullif(e.job -> 'unique_by', 'null'), coalesce(e.job ->> 'on_conflict', 'ignore'),
           nullif(e.job -> 'replace', 'null'), (e.job ->> 'expires_at')::timestamptz
      FROM pg_catalog.jsonb_array_elements(jobs) WITH ORDINALITY e (job, ord)
      LEFT JOIN @schema@.queues q ON q.name = coalesce(e.job ->> 'queue', 'default')
$$;
COMMENT ON FUNCTION @schema@._json_jobs IS 'The elements of enqueue_many''s array, which have been checked, as rows.';

CREATE OR REPLACE FUNCTION @schema@.enqueue_many(jobs jsonb) RETURNS SETOF bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF @schema@._check_jobs('enqueue_many', enqueue_many.jobs) THEN
        RETURN QUERY SELECT a.id FROM @schema@._enqueue_many_unique('enqueue_many', enqueue_many.jobs) a;
        RETURN;
    END IF;
    RETURN QUERY
        INSERT INTO @schema@.jobs (kind, args, queue, priority, scheduled_at, max_attempts, key, tags, meta,
                                   timeout_ms, expires_at)
        SELECT j.kind, j.args, j.queue, j.priority, j.scheduled_at, j.max_attempts, j.key, j.tags, j.meta,
               j.timeout_ms, j.expires_at
          FROM @schema@._json_jobs(enqueue_many.jobs) j ORDER BY j.ord
        RETURNING id;
END
$$;
COMMENT ON FUNCTION @schema@.enqueue_many IS
'Adds many jobs, all or none, and returns their ids in the order of the array.
jobs is a JSON array of objects whose keys are the argument names of enqueue(); only kind is required. A time is text that
names its zone, such as 2026-01-31T12:00:00Z. For a job that conflicts with another, the id of that one is returned.
SQLSTATEs: 22023 an element is wrong, and the message names it (jobs[0] is the first); 23505 a job is not unique, with
on_conflict raise.';

CREATE OR REPLACE FUNCTION @schema@.try_enqueue_many(jobs jsonb) RETURNS TABLE (id bigint, conflict text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF @schema@._check_jobs('try_enqueue_many', try_enqueue_many.jobs) THEN
        RETURN QUERY
            SELECT a.id, a.conflict FROM @schema@._enqueue_many_unique('try_enqueue_many', try_enqueue_many.jobs) a;
        RETURN;
    END IF;
    RETURN QUERY
        INSERT INTO @schema@.jobs (kind, args, queue, priority, scheduled_at, max_attempts, key, tags, meta,
                                   timeout_ms, expires_at)
        SELECT j.kind, j.args, j.queue, j.priority, j.scheduled_at, j.max_attempts, j.key, j.tags, j.meta,
               j.timeout_ms, j.expires_at
          FROM @schema@._json_jobs(try_enqueue_many.jobs) j ORDER BY j.ord
        RETURNING id, NULL::text;
END
$$;
COMMENT ON FUNCTION @schema@.try_enqueue_many IS
'Adds many jobs like enqueue_many(), with the same argument and errors, and returns a row for each in the order of the array.
id is the job''s id, or that of the existing job. conflict is null (the job was added), ignored or replaced.';
