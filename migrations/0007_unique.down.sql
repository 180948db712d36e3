-- Undoes migration 7. Jobs that are unique by unique_by are so no more; those that expire, and wait, never do.

DROP FUNCTION @schema@.prune_uniques(bigint);
DROP FUNCTION @schema@.expire_jobs(timestamptz);
DROP FUNCTION @schema@.try_enqueue_many(jsonb);
DROP FUNCTION @schema@.check_jobs(text, jsonb);
DROP FUNCTION @schema@.enqueue_many_unique(text, jsonb);
DROP FUNCTION @schema@.json_jobs(jsonb);
DROP FUNCTION @schema@.raise_json_job_fault(text, jsonb);
DROP FUNCTION @schema@.try_enqueue(text, jsonb, text, int, timestamptz, int, text, text, text[], jsonb, int, jsonb, text,
    jsonb, timestamptz);
DROP FUNCTION @schema@.enqueue(text, jsonb, text, int, timestamptz, int, text, text, text[], jsonb, int, jsonb, text,
    jsonb, timestamptz);
DROP FUNCTION @schema@.enqueue_unique(text, text, jsonb, text, int, timestamptz, int, text, text, text[], jsonb, int,
    jsonb, text, jsonb, timestamptz);
DROP FUNCTION @schema@.add_job(text, @schema@.jobs, jsonb, text, jsonb);
DROP FUNCTION @schema@.conflict_answer(text, bigint, @schema@.job_state, @schema@.jobs, jsonb, text, jsonb);
DROP FUNCTION @schema@.replace_fields(bigint, @schema@.job_state, @schema@.jobs, jsonb);
DROP FUNCTION @schema@.conflicting_state(bigint, timestamptz, jsonb);
DROP FUNCTION @schema@.expire_these(bigint[]);
DROP FUNCTION @schema@.has_expired(@schema@.job_state, int, timestamptz);
DROP FUNCTION @schema@.conflict_fault(text, jsonb, jsonb, jsonb);
DROP FUNCTION @schema@.is_no_list_of(jsonb, jsonb);
DROP FUNCTION @schema@.unique_hash(text, text, jsonb, jsonb, jsonb);
DROP FUNCTION @schema@.only_keys(jsonb, jsonb);
DROP FUNCTION @schema@.sorted_texts(jsonb);
DROP TABLE @schema@.uniques;

CREATE OR REPLACE FUNCTION @schema@.job_fault_text(field text, got jsonb) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT field || ' must be ' || CASE field
               WHEN 'kind' THEN 'text of 1 to 128 bytes'
               WHEN 'args' THEN 'a JSON object'
               WHEN 'queue' THEN 'text of 1 to 128 bytes'
               WHEN 'priority' THEN '0 to 9'
               WHEN 'scheduled_at' THEN 'null or a finite time'
               WHEN 'max_attempts' THEN '1 to 1000'
               WHEN 'key' THEN 'null or text of 1 to 512 bytes'
               WHEN 'unique_key' THEN 'null or text of 1 to 512 bytes'
               WHEN 'tags' THEN 'an array of texts without nulls'
               WHEN 'meta' THEN 'a JSON object'
               WHEN 'timeout_ms' THEN 'null or 1 to 2147483647'
           END || ', got ' || CASE
               WHEN got IS NULL THEN 'null'
               WHEN octet_length(got::text) <= 100 THEN got::text
               ELSE left(got::text, 60) || '... (' || octet_length(got #>> '{}') || ' bytes)'
           END
$$;

CREATE FUNCTION @schema@.job_fault(kind text, args jsonb, queue text, priority int,
    scheduled_at timestamptz, max_attempts int, key text, unique_key text, tags text[], meta jsonb,
    timeout_ms int) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN kind IS NULL OR pg_catalog.octet_length(kind) NOT BETWEEN 1 AND 128
            THEN @schema@.job_fault_text('kind', pg_catalog.to_jsonb(kind))
        WHEN args IS NULL OR pg_catalog.jsonb_typeof(args) <> 'object'
            THEN @schema@.job_fault_text('args', args)
        WHEN queue IS NULL OR pg_catalog.octet_length(queue) NOT BETWEEN 1 AND 128
            THEN @schema@.job_fault_text('queue', pg_catalog.to_jsonb(queue))
        WHEN priority IS NULL OR priority NOT BETWEEN 0 AND 9
            THEN @schema@.job_fault_text('priority', pg_catalog.to_jsonb(priority))
        WHEN NOT pg_catalog.isfinite(scheduled_at)
            THEN @schema@.job_fault_text('scheduled_at', pg_catalog.to_jsonb(scheduled_at))
        WHEN max_attempts IS NULL OR max_attempts NOT BETWEEN 1 AND 1000
            THEN @schema@.job_fault_text('max_attempts', pg_catalog.to_jsonb(max_attempts))
        WHEN pg_catalog.octet_length(key) NOT BETWEEN 1 AND 512
            THEN @schema@.job_fault_text('key', pg_catalog.to_jsonb(key))
        WHEN pg_catalog.octet_length(unique_key) NOT BETWEEN 1 AND 512
            THEN @schema@.job_fault_text('unique_key', pg_catalog.to_jsonb(unique_key))
        WHEN tags IS NULL OR pg_catalog.array_ndims(tags) > 1
             OR pg_catalog.array_position(tags, NULL) IS NOT NULL
            THEN @schema@.job_fault_text('tags', pg_catalog.to_jsonb(tags))
        WHEN meta IS NULL OR pg_catalog.jsonb_typeof(meta) <> 'object'
            THEN @schema@.job_fault_text('meta', meta)
        WHEN timeout_ms < 1
            THEN @schema@.job_fault_text('timeout_ms', pg_catalog.to_jsonb(timeout_ms))
    END
$$;

CREATE OR REPLACE FUNCTION @schema@.jobs_before_insert() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fault CONSTANT text := @schema@.job_fault(NEW.kind, NEW.args, NEW.queue, NEW.priority::int, NEW.scheduled_at,
        NEW.max_attempts, NEW.key, NEW.unique_key, NEW.tags, NEW.meta, NEW.timeout_ms);
BEGIN
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION 'jobq.jobs: %', fault USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NEW.state NOT IN ('available', 'scheduled', 'suspended') THEN
        RAISE EXCEPTION 'jobq.jobs: state of a new job must be available, scheduled or suspended, got %', NEW.state
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NEW.state = 'suspended' THEN
        NEW.position := NULL;
    ELSIF NEW.scheduled_at > now() THEN
        NEW.state := 'scheduled';
        NEW.position := NULL;
        IF NEW.scheduled_at < now() + interval '2 seconds' THEN
            PERFORM pg_notify('@channel@', 'stage');
        END IF;
    ELSE
        NEW.state := 'available';
        NEW.position := coalesce(NEW.position, @schema@.next_position());
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION @schema@.jobs_after_insert() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM @schema@.idle) THEN
        PERFORM @schema@.wake(ARRAY(SELECT DISTINCT n.queue FROM inserted n WHERE n.position IS NOT NULL));
    END IF;
    RETURN NULL;
END
$$;

DROP TRIGGER jobs_before_insert ON @schema@.jobs;
CREATE TRIGGER jobs_before_insert BEFORE INSERT ON @schema@.jobs FOR EACH ROW
    WHEN (NEW.scheduled_at > now() OR NEW.state <> 'available' OR NEW.position IS NULL
          OR jsonb_typeof(NEW.args) <> 'object' OR jsonb_typeof(NEW.meta) <> 'object'
          OR NOT isfinite(NEW.scheduled_at)
          OR CASE WHEN array_ndims(NEW.tags) > 1 THEN true ELSE array_position(NEW.tags, NULL) IS NOT NULL END
          OR octet_length(NEW.key) NOT BETWEEN 1 AND 512 OR octet_length(NEW.unique_key) NOT BETWEEN 1 AND 512)
    EXECUTE FUNCTION @schema@.jobs_before_insert();

DROP FUNCTION @schema@.job_fault(text, jsonb, text, int, timestamptz, int, text, text, text[], jsonb, int, timestamptz);

CREATE OR REPLACE FUNCTION @schema@.json_unknown_key_text(job jsonb) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ' has an unknown key ' || to_json(min(unknown.key)) || ': allowed are kind, args, queue, priority,'
           ' scheduled_at, max_attempts, key, unique_key, tags, meta and timeout_ms'
      FROM jsonb_object_keys(job
           - '{kind,args,queue,priority,scheduled_at,max_attempts,key,unique_key,tags,meta,timeout_ms}'::text[]) AS unknown (key)
$$;

CREATE OR REPLACE FUNCTION @schema@.json_job_fault(job jsonb) RETURNS text LANGUAGE sql STABLE AS $$
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

CREATE OR REPLACE FUNCTION @schema@.enqueue_many(jobs jsonb) RETURNS SETOF bigint
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
