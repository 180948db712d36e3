-- jobq, migration 12: crons that do not overlap themselves; jobs of a cron that expire or are unique; max_attempts of a queue;
-- times as text name their zone.

-- ---- max_attempts of a queue ----

-- What an enqueue gets that names no max_attempts: that of the queue, else 20. Nodes whose configuration sets it write
-- it here (queue_declare), so it holds while no node runs, too. declared: what each node said, by its name.
ALTER TABLE @schema@.queues
    ADD COLUMN max_attempts int CHECK (max_attempts BETWEEN 1 AND 1000),
    ADD COLUMN declared     jsonb NOT NULL DEFAULT '{}';

-- SECURITY DEFINER: who enqueues may not read the queues.
CREATE FUNCTION @schema@._queue_attempts(queue text) RETURNS int
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce((SELECT q.max_attempts FROM @schema@.queues q WHERE q.name = $1), 20)
$$;

-- queues.declared once a node has said n (null: nothing) of a queue. What nodes said that do not live any more ends with that,
-- where this node serves the queue.
CREATE FUNCTION @schema@._queue_said(declared jsonb, node text, n int, serves boolean) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_object_agg(d.key, d.value), '{}') || CASE WHEN $3 IS NULL THEN '{}' ELSE jsonb_build_object($2, $3) END
      FROM jsonb_each(CASE WHEN jsonb_typeof($1) = 'object' THEN $1 ELSE '{}' END) d
     WHERE d.key <> $2
       AND (NOT $4 OR EXISTS (SELECT FROM @schema@.nodes a WHERE a.name = d.key AND a.expires_at > clock_timestamp()))
$$;

-- What a node's configuration says of max_attempts: an object of the queues that it serves, with a number or null. Where nodes
-- differ the greatest counts: a job is not discarded earlier than any of them says. changed: queues whose max_attempts is another
-- now; busy: rows that another session has locked, for which it is to be called again.
CREATE FUNCTION @schema@.queue_declare(node text, queues jsonb, OUT changed int, OUT busy int)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
#variable_conflict use_variable
DECLARE
    said record;
    had int;
    has int;
BEGIN
    changed := 0;
    busy := 0;
    FOR said IN
        SELECT coalesce(s.key, q.name) AS queue, nullif(s.value, 'null')::int AS n, s.key IS NOT NULL AS serves
          FROM jsonb_each(queues) s
          FULL JOIN @schema@.queues q ON q.name = s.key
         WHERE CASE WHEN q.name IS NULL THEN s.value <> 'null'
                    WHEN s.key IS NULL THEN q.declared ? node
                    ELSE q.declared <> '{}' OR s.value <> 'null' END
           AND coalesce(q.declared, '{}') IS DISTINCT FROM
               @schema@._queue_said(q.declared, node, nullif(s.value, 'null')::int, s.key IS NOT NULL)
         ORDER BY 1
    LOOP
        BEGIN
            INSERT INTO @schema@.queues AS q (name) VALUES (said.queue) ON CONFLICT ON CONSTRAINT queues_pkey DO NOTHING;
            SELECT q.max_attempts INTO had FROM @schema@.queues q WHERE q.name = said.queue FOR UPDATE;
            UPDATE @schema@.queues q
               SET declared = d.said, max_attempts = (SELECT max(m.value::int) FROM jsonb_each_text(d.said) m), updated_at = now()
              FROM (SELECT @schema@._queue_said(r.declared, node, said.n, said.serves) AS said
                      FROM @schema@.queues r WHERE r.name = said.queue) d
             WHERE q.name = said.queue
            RETURNING q.max_attempts INTO has;
            SET CONSTRAINTS ALL IMMEDIATE;
            IF has IS DISTINCT FROM had THEN
                changed := changed + 1;
            END IF;
        EXCEPTION
            WHEN lock_not_available THEN
                busy := busy + 1;
                PERFORM set_config('lock_timeout', '1ms', true); -- once is patience enough
            WHEN OTHERS OR assert_failure THEN
                IF @schema@._is_passing(SQLSTATE) THEN
                    RAISE;
                END IF;
                RAISE WARNING 'queue %: its max_attempts could not be written: %', said.queue, left(SQLERRM, 1000)
                    USING ERRCODE = '01JQ1';
        END;
    END LOOP;
END
$$;

-- A plain INSERT that names no max_attempts: 20 while no queue has another one, else jobs_before_insert asks the queue. Each such
-- INSERT calls this, so there is no SET: all names have their schema.
CREATE FUNCTION @schema@._default_attempts() RETURNS int
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN EXISTS (SELECT FROM @schema@.queues q WHERE q.max_attempts IS NOT NULL) THEN NULL ELSE 20 END
$$;
ALTER TABLE @schema@.jobs ALTER COLUMN max_attempts SET DEFAULT @schema@._default_attempts();

-- As before; a plain INSERT may leave out max_attempts, too: that of the queue counts, else 20.
CREATE OR REPLACE FUNCTION @schema@.jobs_before_insert() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
    IF octet_length(NEW.unique_key) > 512 THEN -- or its index refuses it, in other words
        RAISE EXCEPTION 'jobq.jobs: %', @schema@.job_fault_text('unique_key', to_jsonb(NEW.unique_key))
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NEW.max_attempts IS NULL THEN
        NEW.max_attempts := coalesce((SELECT q.max_attempts FROM @schema@.queues q WHERE q.name = NEW.queue), 20);
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
            PERFORM @schema@._notify('stage');
        END IF;
    ELSE
        NEW.state := 'available';
        NEW.position := coalesce(NEW.position, @schema@.next_position());
    END IF;
    RETURN NEW;
END
$$;

DROP TRIGGER jobs_before_insert ON @schema@.jobs;
CREATE TRIGGER jobs_before_insert BEFORE INSERT ON @schema@.jobs FOR EACH ROW
    WHEN (NEW.scheduled_at > now() OR NEW.state <> 'available' OR NEW.position IS NULL OR octet_length(NEW.unique_key) > 512
          OR NEW.max_attempts IS NULL)
    EXECUTE FUNCTION @schema@.jobs_before_insert();

-- As before; max_attempts is null where it is not named: then that of the queue counts, else 20.
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
    -- Not by _queue_attempts: its call costs half of what all the rest does.
    attempts CONSTANT int := coalesce(enqueue.max_attempts,
        (SELECT q.max_attempts FROM @schema@.queues q WHERE q.name = enqueue.queue), 20);
    fault text := @schema@.job_fault(enqueue.kind, enqueue.args, enqueue.queue, enqueue.priority,
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
      FROM @schema@.enqueue_unique('enqueue', enqueue.kind, enqueue.args, enqueue.queue, enqueue.priority,
               enqueue.scheduled_at, attempts, enqueue.key, enqueue.unique_key, enqueue.tags,
               enqueue.meta, enqueue.timeout_ms, enqueue.unique_by, enqueue.on_conflict, enqueue."replace",
               enqueue.expires_at) a;
    RETURN job_id;
END
$$;

-- As before, likewise.
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
    -- Not by _queue_attempts: its call costs half of what all the rest does.
    attempts CONSTANT int := coalesce(try_enqueue.max_attempts,
        (SELECT q.max_attempts FROM @schema@.queues q WHERE q.name = try_enqueue.queue), 20);
    fault text := @schema@.job_fault(try_enqueue.kind, try_enqueue.args, try_enqueue.queue, try_enqueue.priority,
                                     try_enqueue.scheduled_at, attempts, try_enqueue.key,
                                     try_enqueue.unique_key, try_enqueue.tags, try_enqueue.meta,
                                     try_enqueue.timeout_ms, try_enqueue.expires_at);
BEGIN
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION 'jobq.try_enqueue: %', fault USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN QUERY
        SELECT a.id, a.conflict
          FROM @schema@.enqueue_unique('try_enqueue', try_enqueue.kind, try_enqueue.args, try_enqueue.queue,
                   try_enqueue.priority, try_enqueue.scheduled_at, attempts, try_enqueue.key,
                   try_enqueue.unique_key, try_enqueue.tags, try_enqueue.meta, try_enqueue.timeout_ms,
                   try_enqueue.unique_by, try_enqueue.on_conflict, try_enqueue."replace",
                   try_enqueue.expires_at) a;
END
$$;

-- Whether a time as text names its zone. One that does not means another moment on another server, and with another TimeZone:
-- it is refused. The form is that of RFC 3339; so DateStyle does not count either.
CREATE FUNCTION @schema@._names_zone(at text) RETURNS boolean LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT $1 ~ ('^[0-9]{4,6}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]+)?)?'
                 '[ ]?([Zz]|[+-][0-9]{2}(:?[0-9]{2}){0,2})$')
$$;

-- What is wrong with a time of enqueue_many, once it has been found to be one; null: nothing.
CREATE FUNCTION @schema@._zone_fault(job jsonb, field text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN NOT @schema@._names_zone($1 ->> $2)
                THEN $2 || ' must name its zone, as "2026-01-31T12:00:00Z" or "2026-01-31T13:00:00+01:00" does, got '
                     || @schema@._shown($1 -> $2) END
$$;

-- As before; a time names its zone, and max_attempts may be null, which is as if it were not there.
CREATE OR REPLACE FUNCTION @schema@.json_job_fault(job jsonb) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN pg_catalog.jsonb_typeof(job) <> 'object'
            THEN ' must be a JSON object, got ' || @schema@._shown(job)
        WHEN job - '{kind,args,queue,priority,scheduled_at,max_attempts,key,unique_key,tags,meta,timeout_ms,unique_by,on_conflict,replace,expires_at}'::text[]
             <> '{}'
            THEN @schema@.json_unknown_key_text(job)
        WHEN NOT job ? 'kind' THEN '.kind is missing'
        WHEN pg_catalog.jsonb_typeof(job -> 'args') <> 'object'
            THEN '.' || @schema@.job_fault_text('args', job -> 'args')
        WHEN pg_catalog.jsonb_typeof(job -> 'meta') <> 'object'
            THEN '.' || @schema@.job_fault_text('meta', job -> 'meta')
        WHEN pg_catalog.jsonb_typeof(job -> 'kind') <> 'string'
            THEN '.' || @schema@.job_fault_text('kind', job -> 'kind')
        WHEN pg_catalog.jsonb_typeof(job -> 'queue') <> 'string'
            THEN '.' || @schema@.job_fault_text('queue', job -> 'queue')
        WHEN @schema@.json_is_no_int(job -> 'priority')
            THEN '.' || @schema@.job_fault_text('priority', job -> 'priority')
        WHEN pg_catalog.jsonb_typeof(job -> 'scheduled_at') NOT IN ('string', 'null')
            THEN '.' || @schema@.job_fault_text('scheduled_at', job -> 'scheduled_at')
        WHEN pg_catalog.jsonb_typeof(job -> 'expires_at') NOT IN ('string', 'null')
            THEN '.' || @schema@.job_fault_text('expires_at', job -> 'expires_at')
        WHEN @schema@.json_is_no_int(nullif(job -> 'max_attempts', 'null'))
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
        ELSE coalesce(
            '.' || @schema@.job_fault(job ->> 'kind', '{}',
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
                 THEN '.' || @schema@.conflict_fault(job ->> 'unique_key', nullif(job -> 'unique_by', 'null'),
                        coalesce(job -> 'on_conflict', '"ignore"'), nullif(job -> 'replace', 'null')) END)
    END
$$;

-- As before; where max_attempts is not named that of the queue counts, else 20.
CREATE OR REPLACE FUNCTION @schema@.json_jobs(jobs jsonb) RETURNS TABLE (ord bigint, kind text, args jsonb, queue text,
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

-- As before; a time names its zone.
CREATE OR REPLACE FUNCTION @schema@.filter_sql(caller text, filter jsonb, OUT live text, OUT still text, OUT ended text,
                                    OUT most bigint, OUT by_id boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    states CONSTANT text := array_to_string(enum_range(NULL::@schema@.job_state), ', ');
    conditions text[] := '{}';
    of_ids text;
    is_live boolean := true;
    conditional boolean := false;
    name text;
    got jsonb;
    allowed text;
    texts text[];
    numbers bigint[];
    at timestamptz;
    condition text;
BEGIN
    by_id := false;
    IF filter IS NULL OR jsonb_typeof(filter) <> 'object' THEN
        RAISE EXCEPTION 'jobq.%: filter must be a JSON object, got %', caller, @schema@.shown(filter)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF @schema@._long_number(filter) THEN
        RAISE EXCEPTION 'jobq.%: filter must hold no number of more than 4000 digits before its point or behind it', caller
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR name, got IN SELECT m.key, m.value FROM jsonb_each(filter) m ORDER BY m.key COLLATE "C" LOOP
        condition := NULL;
        CASE
        WHEN name = 'all' THEN
            allowed := 'true';
            condition := CASE WHEN got = 'true' THEN 'true' END;
        WHEN name = 'ids' THEN
            allowed := 'an array of job ids';
            IF jsonb_typeof(got) = 'array' THEN
                numbers := @schema@.numbers_of(got, 1, 9223372036854775807);
                by_id := cardinality(numbers) <= 200;
                of_ids := format('j.id = ANY (%L::bigint[])', numbers);
                condition := CASE WHEN numbers IS NOT NULL THEN 'true' END;
            END IF;
        WHEN name = 'state' THEN
            allowed := 'a state or an array of states (' || states || ')';
            texts := @schema@.texts_of(got);
            IF texts <@ enum_range(NULL::@schema@.job_state)::text[] THEN
                condition := format('j.state = ANY (%L::@schema@.job_state[])', texts);
            END IF;
        WHEN name IN ('queue', 'kind') THEN
            allowed := 'a text or an array of texts';
            texts := @schema@.texts_of(got);
            condition := CASE WHEN texts IS NOT NULL THEN format('j.%s = ANY (%L::text[])', name, texts) END;
        WHEN name = 'tags' THEN
            allowed := 'an array of one text or more';
            IF jsonb_typeof(got) = 'array' AND got <> '[]' THEN
                texts := @schema@.texts_of(got);
                condition := CASE WHEN texts IS NOT NULL THEN format('j.tags @> %L::text[]', texts) END;
            END IF;
        WHEN name = 'key' THEN
            allowed := 'a text';
            condition := CASE WHEN jsonb_typeof(got) = 'string' THEN format('j.key = %L', got #>> '{}') END;
        WHEN name IN ('args', 'meta') THEN
            -- Everything contains {}.
            allowed := 'a JSON object with one member or more';
            IF jsonb_typeof(got) = 'object' AND got <> '{}' THEN
                condition := format('j.%s @> %L::jsonb', name, got);
            END IF;
        WHEN name = 'priority' THEN
            allowed := '0 to 9 or an array of such numbers';
            numbers := @schema@.numbers_of(got, 0, 9);
            condition := CASE WHEN numbers IS NOT NULL THEN format('j.priority = ANY (%L::smallint[])', numbers) END;
        WHEN name IN ('inserted_before', 'inserted_after', 'scheduled_before', 'scheduled_after', 'finished_before',
                      'finished_after') THEN
            allowed := 'a time such as "2026-01-31T12:00:00Z"';
            at := @schema@.time_of(got);
            IF at IS NOT NULL AND NOT @schema@._names_zone(got #>> '{}') THEN
                allowed := 'a time with its zone, such as "2026-01-31T12:00:00Z" or "2026-01-31T13:00:00+01:00"';
            ELSIF at IS NOT NULL THEN
                condition := format('j.%s_at %s %L::timestamptz', split_part(name, '_', 1),
                                    CASE WHEN name LIKE '%before' THEN '<' ELSE '>' END, @schema@.iso(at));
            END IF;
            IF name LIKE 'finished%' AND condition IS NOT NULL THEN
                conditions := conditions || condition;
                is_live := false;
                conditional := true;
                CONTINUE;
            END IF;
        WHEN name = 'limit' THEN
            allowed := '1 to 2147483647';
            numbers := @schema@.numbers_of(got, 1, 2147483647);
            IF jsonb_typeof(got) = 'number' AND numbers IS NOT NULL THEN
                most := numbers[1];
                CONTINUE;
            END IF;
        ELSE
            RAISE EXCEPTION 'jobq.%: filter has an unknown member %: allowed are all, ids, state, queue, kind, tags, key, '
                'args, meta, priority, inserted_before, inserted_after, scheduled_before, scheduled_after, finished_before, '
                'finished_after and limit', caller, to_json(name) USING ERRCODE = 'invalid_parameter_value';
        END CASE;
        IF condition IS NULL THEN
            RAISE EXCEPTION 'jobq.%: filter.% must be %, got %', caller, name, allowed, @schema@.shown(got)
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        conditional := true;
        conditions := conditions || condition;
    END LOOP;
    IF NOT conditional THEN
        RAISE EXCEPTION 'jobq.%: filter must have a condition, or "all": true for every job, got %', caller,
            @schema@.shown(filter) USING ERRCODE = 'invalid_parameter_value';
    END IF;
    still := CASE WHEN is_live THEN array_to_string(conditions, ' AND ') ELSE 'false' END;
    ended := concat_ws(' AND ', of_ids, array_to_string(conditions, ' AND '));
    live := CASE WHEN is_live THEN ended ELSE 'false' END;
END
$$;

-- ---- times as they are printed ----

-- As the commands' JSON has it: RFC 3339, in UTC.
CREATE FUNCTION @schema@._utc(at timestamptz) RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN isfinite($1) THEN to_char($1 AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') ELSE $1::text END
$$;

-- For people: to the second, and how long ago that is.
CREATE FUNCTION @schema@._ago(at timestamptz) RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN NOT isfinite($1) THEN $1::text
                ELSE to_char($1 AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
                     || format(CASE WHEN d.s < 0 THEN ' (in %s)' ELSE ' (%s ago)' END,
                         CASE WHEN abs(d.s) < 60 THEN abs(d.s) || ' s' WHEN abs(d.s) < 3600 THEN abs(d.s) / 60 || ' min'
                              WHEN abs(d.s) < 172800 THEN abs(d.s) / 3600 || ' h' ELSE abs(d.s) / 86400 || ' d' END) END
      FROM (SELECT CASE WHEN isfinite($1) THEN trunc(extract(epoch FROM clock_timestamp() - $1))::bigint END AS s) d
$$;

-- As the clocks of a zone show it, with their offset; in UTC where the server does not know the zone.
CREATE FUNCTION @schema@._in_zone(at timestamptz, zone text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    ahead int;
BEGIN
    ahead := CASE WHEN isfinite(at)
                  THEN round(extract(epoch FROM (at AT TIME ZONE zone) - (at AT TIME ZONE 'UTC')) / 60) END;
    RETURN to_char(at AT TIME ZONE zone, 'YYYY-MM-DD"T"HH24:MI:SS')
           || CASE WHEN ahead = 0 THEN 'Z'
                   ELSE CASE WHEN ahead < 0 THEN '-' ELSE '+' END || to_char(abs(ahead) / 60, 'FM00') || ':'
                        || to_char(abs(ahead) % 60, 'FM00') END;
EXCEPTION WHEN invalid_parameter_value THEN
    RETURN to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"');
END
$$;

-- ---- crons ----

ALTER TABLE @schema@.crons
    ALTER COLUMN max_attempts DROP NOT NULL,            -- null: that of the queue, else 20
    ALTER COLUMN max_attempts DROP DEFAULT,
    ADD COLUMN overlap    text NOT NULL DEFAULT 'allow', -- while a job of the cron is live: allow, skip, wait
    ADD COLUMN expires    interval,                     -- how long a job of the cron may wait for its first attempt
    ADD COLUMN unique_by  jsonb,                        -- as of enqueue
    ADD COLUMN skipped_at timestamptz;                  -- the newest slot that brought no job, because of overlap or unique_by

-- The jobs of crons: which of a cron's are live is asked here, since what meta says can be written by whoever enqueues. Of those
-- that have ended the newest 100 of a cron stay, as one may be retried by hand. waits: the job is suspended until no
-- other one of its cron is live (_cron_promote); again_at: when that is tried again, after the database has refused it.
CREATE TABLE @schema@.cron_jobs (
    job_id   bigint PRIMARY KEY,
    cron     text NOT NULL,
    waits    boolean NOT NULL DEFAULT false,
    again_at timestamptz
);
CREATE INDEX cron_jobs_cron ON @schema@.cron_jobs (cron, job_id);
CREATE INDEX cron_jobs_waits ON @schema@.cron_jobs (job_id) WHERE waits;
INSERT INTO @schema@.cron_jobs (job_id, cron)
    SELECT c.last_job_id, c.name FROM @schema@.crons c WHERE c.last_job_id IS NOT NULL ON CONFLICT DO NOTHING;

-- The live jobs of a cron. One that has expired is in no new one's way.
CREATE FUNCTION @schema@._cron_live(cron text) RETURNS TABLE (id bigint, state @schema@.job_state, attempt int)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT j.id, j.state, j.attempt
      FROM @schema@.cron_jobs c
      JOIN @schema@.jobs j ON j.id = ANY (ARRAY[c.job_id])
     WHERE c.cron = $1 AND NOT @schema@.has_expired(j.state, j.attempt, j.expires_at)
$$;

-- What the name and columns of a row must be, and its next slot. Not called for what cron_fire writes.
CREATE OR REPLACE FUNCTION @schema@.crons_before_write() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    read CONSTANT record := @schema@.cron_parse(NEW.schedule);
    fields CONSTANT @schema@.cron_fields := read.fields;
    fault text := CASE
        WHEN NEW.name IS NULL OR octet_length(NEW.name) NOT BETWEEN 1 AND 128 OR NEW.name ~ '[[:cntrl:]]'
            THEN 'name must be text of 1 to 128 bytes without control characters, got ' || coalesce(to_json(NEW.name)::text, 'null')
        ELSE coalesce('schedule: ' || read.fault,
                      @schema@.job_fault(NEW.kind, NEW.args, NEW.queue, NEW.priority, NULL, coalesce(NEW.max_attempts, 20), NULL, NULL,
                                         NEW.tags, NEW.meta, NEW.timeout_ms, NULL),
                      CASE WHEN NEW.missed IS NULL OR NEW.missed NOT IN ('skip', 'once', 'all')
                           THEN 'missed must be skip, once or all, got ' || coalesce(to_json(NEW.missed)::text, 'null')
                           WHEN NEW.overlap IS NULL OR NEW.overlap NOT IN ('allow', 'skip', 'wait')
                           THEN 'overlap must be allow, skip or wait, got ' || coalesce(to_json(NEW.overlap)::text, 'null')
                           WHEN NEW.expires NOT BETWEEN interval '1 millisecond' AND interval '3650 days'
                           THEN 'expires must be null or an interval of 1 millisecond to 3650 days, got '
                                || to_json(NEW.expires::text)
                           WHEN NEW.paused IS NULL THEN 'paused must be true or false, got null' END,
                      @schema@.conflict_fault(NULL, NEW.unique_by, '"ignore"', NULL)) END;
    moved boolean := TG_OP = 'INSERT';
    since timestamptz := clock_timestamp();
    slot timestamptz;
BEGIN
    NEW.unique_by := nullif(NEW.unique_by, 'null');
    IF TG_OP = 'UPDATE' THEN
        IF NEW.last_at BETWEEN since AND since + interval '1 day' THEN
            since := NEW.last_at; -- the clock was set back: no slot comes twice
        END IF;
        moved := NEW.schedule IS DISTINCT FROM OLD.schedule OR NEW.timezone IS DISTINCT FROM OLD.timezone
                 OR NEW.paused <> OLD.paused;
    END IF;
    IF fault IS NULL AND (TG_OP = 'INSERT' OR NEW.timezone IS DISTINCT FROM OLD.timezone) THEN
        fault := @schema@.cron_zone_fault(NEW.timezone);
    END IF;
    IF fault IS NULL AND moved THEN
        -- @every counts from whole seconds: easier to read.
        slot := @schema@.cron_after(fields, CASE WHEN fields.every_ms IS NULL THEN since
                                                 ELSE date_trunc('second', since) END, NEW.timezone);
        IF slot IS NULL AND fields.reboot IS NULL THEN
            fault := 'schedule: ' || to_json(btrim(NEW.schedule, E' \t')) || ' never comes: none of its months has such a day';
        END IF;
    END IF;
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION 'jobq.crons: %', fault USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NEW.paused THEN
        NEW.next_at := NULL;
    ELSIF moved AND (TG_OP = 'UPDATE' OR NEW.next_at IS NULL) THEN -- one that a restored dump brings along stays
        NEW.next_at := slot;
    END IF;
    NEW.error := NULL;
    NEW.failed_at := NULL;
    NEW.updated_at := now();
    RETURN NEW;
END
$$;

DROP TRIGGER crons_before_update ON @schema@.crons;
CREATE TRIGGER crons_before_update BEFORE UPDATE OF name, schedule, timezone, kind, args, queue, paused, priority,
    max_attempts, timeout_ms, meta, tags, missed, overlap, expires, unique_by ON @schema@.crons
    FOR EACH ROW EXECUTE FUNCTION @schema@.crons_before_write();

-- Enqueues the job of one slot (null: by hand), if no other job is in its way; else added is false, id is that one's, and why
-- says it. The caller has locked the cron's row: so two callers do not both find that none is live.
--
-- With overlap = wait a job is enqueued behind one that has begun, and suspended until that one has ended; where one has not
-- begun yet there is one that waits already.
DROP FUNCTION @schema@.cron_enqueue(@schema@.crons, timestamptz);
CREATE FUNCTION @schema@.cron_enqueue(cron @schema@.crons, slot timestamptz, OUT id bigint, OUT added boolean, OUT why text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    other record;
    conflict text;
    behind boolean := false;
BEGIN
    added := false;
    IF cron.overlap <> 'allow' THEN
        SELECT l.id, l.state, l.attempt INTO other FROM @schema@._cron_live(cron.name) l ORDER BY l.attempt, l.id LIMIT 1;
        behind := FOUND;
        IF behind AND (cron.overlap = 'skip' OR other.attempt = 0) THEN
            id := other.id;
            why := format('overlap is %s, and job %s is %s', cron.overlap, other.id, other.state);
            RETURN;
        END IF;
    END IF;
    SELECT e.id, e.conflict INTO id, conflict
      FROM @schema@.try_enqueue(cron.kind, cron.args, queue => cron.queue, priority => cron.priority,
               max_attempts => cron.max_attempts, tags => cron.tags, timeout_ms => cron.timeout_ms,
               meta => cron.meta || jsonb_build_object('cron', cron.name)
                       || CASE WHEN slot IS NULL THEN '{}' ELSE jsonb_build_object('cron_at', replace(to_char(slot,
                               'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), '.000Z', 'Z')) END,
               unique_by => cron.unique_by, expires_at => clock_timestamp() + cron.expires) e;
    IF conflict IS NOT NULL THEN
        why := format('job %s is in its way by unique_by', id);
        RETURN;
    END IF;
    INSERT INTO @schema@.cron_jobs (job_id, cron, waits) VALUES (id, cron.name, behind);
    IF behind THEN
        UPDATE @schema@.jobs j SET state = 'suspended', position = NULL WHERE j.id = cron_enqueue.id;
        IF NOT FOUND THEN -- else two of them would run
            RAISE EXCEPTION 'a trigger or rule on jobs keeps the job from being suspended'
                USING ERRCODE = 'triggered_action_exception';
        END IF;
    END IF;
    added := true;
END
$$;

-- Makes jobs available that waited for others of their cron to end. One whose cron is gone, or is no longer told to wait, waits
-- for nothing. promoted: how many; waiting: whether some still wait; more: whether some could have gone on and were too many.
CREATE FUNCTION @schema@._cron_promote(OUT promoted int, OUT waiting boolean, OUT more boolean)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    most CONSTANT int := 20;
    looked int := 0;
    ready record;
    queue text;
    state text;
    fault text;
BEGIN
    promoted := 0;
    FOR ready IN
        SELECT c.job_id, c.cron
          FROM @schema@.cron_jobs c
         WHERE c.waits AND (c.again_at IS NULL OR c.again_at <= clock_timestamp())
           AND (NOT EXISTS (SELECT FROM @schema@.crons k WHERE k.name = c.cron AND k.overlap = 'wait')
                OR NOT EXISTS (SELECT FROM @schema@._cron_live(c.cron) l WHERE l.id <> c.job_id))
         ORDER BY c.job_id
         LIMIT most
           FOR UPDATE OF c SKIP LOCKED
    LOOP
        looked := looked + 1;
        BEGIN
            UPDATE @schema@.jobs j SET state = 'available', position = @schema@.next_position()
             WHERE j.id = ready.job_id AND j.state = 'suspended'
            RETURNING j.queue INTO queue;
            IF FOUND THEN
                PERFORM @schema@.wake(ARRAY[queue]);
                promoted := promoted + 1;
            ELSIF EXISTS (SELECT FROM @schema@.jobs j WHERE j.id = ready.job_id AND j.state = 'suspended') THEN
                RAISE EXCEPTION 'a trigger or rule on jobs keeps the job from being changed'
                    USING ERRCODE = 'triggered_action_exception';
            END IF;
            UPDATE @schema@.cron_jobs c SET waits = false, again_at = NULL WHERE c.job_id = ready.job_id;
            SET CONSTRAINTS ALL IMMEDIATE;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, fault = MESSAGE_TEXT;
            IF @schema@._is_passing(state) THEN
                RAISE;
            END IF;
            IF state = '55P03' THEN
                PERFORM set_config('lock_timeout', '1ms', true); -- once is patience enough
            ELSE
                RAISE WARNING 'cron %: job % cannot go on, though nothing is in its way: %', ready.cron, ready.job_id,
                    left(fault, 1000) USING ERRCODE = '01JQ1';
            END IF;
            UPDATE @schema@.cron_jobs c
               SET again_at = clock_timestamp() + CASE WHEN state = '55P03' THEN interval '1 second' ELSE interval '1 minute' END
             WHERE c.job_id = ready.job_id;
        END;
    END LOOP;
    more := looked = most;
    waiting := EXISTS (SELECT FROM @schema@.cron_jobs c WHERE c.waits);
END
$$;

-- Enqueues the jobs of one cron's slots that have come, at most `most` of them, and moves it on; returns how many.
CREATE OR REPLACE FUNCTION @schema@.cron_fire_one(cron @schema@.crons, upto timestamptz, most int) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    read CONSTANT record := @schema@.cron_parse(cron.schedule);
    fields CONSTANT @schema@.cron_fields := read.fields;
    slot timestamptz := cron.next_at;
    last timestamptz := cron.last_at;
    job bigint := cron.last_job_id;
    skipped timestamptz := cron.skipped_at;
    done record;
    fired int := 0;
BEGIN
    IF read.fault IS NOT NULL THEN
        RAISE EXCEPTION 'schedule: %', read.fault USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF cron.missed <> 'all' THEN
        slot := @schema@.cron_newest(fields, slot, upto, cron.timezone);
    END IF;
    WHILE slot <= upto AND fired < most LOOP
        IF cron.missed <> 'skip' OR upto - slot <= interval '1 minute' THEN
            done := @schema@.cron_enqueue(cron, slot);
            IF done.added THEN
                last := slot;
                job := done.id;
                fired := fired + 1;
            ELSE -- nor does any later one bring a job now
                slot := @schema@.cron_newest(fields, slot, upto, cron.timezone);
                skipped := slot;
            END IF;
        END IF;
        slot := @schema@.cron_after(fields, slot, cron.timezone);
    END LOOP;
    UPDATE @schema@.crons c SET next_at = slot, last_at = last, last_job_id = job, skipped_at = skipped,
           error = NULL, failed_at = NULL
     WHERE c.name = cron.name;
    IF NOT FOUND THEN -- else this slot would be enqueued again and again
        RAISE EXCEPTION 'a trigger or rule on crons keeps its row from being changed' USING ERRCODE = 'triggered_action_exception';
    END IF;
    RETURN fired;
END
$$;

-- Enqueues the jobs of all slots that have come. To be called when the next one has, by any number of callers: a row is
-- locked while its slots are enqueued and moved on, and who finds it locked leaves it alone; so is one whose job waits for a
-- lock (a trigger of the application's wants a row of its own), which is tried again after a second. fired: how many jobs,
-- with those that waited for another one to end, and go on;
-- next_ms: when to come again, 0: at once, since there are more; null: nothing is due, ever.
CREATE OR REPLACE FUNCTION @schema@.cron_fire(OUT fired int, OUT next_ms bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET lock_timeout = '100ms' AS $$
#variable_conflict use_variable
DECLARE
    upto CONSTANT timestamptz := clock_timestamp();
    cron @schema@.crons;
    next_at timestamptz;
    fault text;
    state text;
    waits record;
BEGIN
    waits := @schema@._cron_promote();
    fired := waits.promoted;
    -- With the 20 of _cron_promote these are fewer than 64 rows: more subtransactions than that in one transaction
    -- slow down everybody's snapshots.
    FOR cron IN
        SELECT c.* FROM @schema@.crons c
         WHERE c.next_at <= upto AND (c.failed_at IS NULL OR c.failed_at <= upto - interval '1 minute')
         ORDER BY c.next_at
         LIMIT 40
           FOR UPDATE SKIP LOCKED
    LOOP
        EXIT WHEN fired >= 1000;
        BEGIN
            fired := fired + @schema@.cron_fire_one(cron, upto, 1000 - fired);
            SET CONSTRAINTS ALL IMMEDIATE; -- what the commit would refuse is refused here
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, fault = MESSAGE_TEXT;
            -- Only a transaction that cannot go on ends the call.
            IF @schema@._is_passing(state) THEN
                RAISE;
            END IF;
            IF state = '55P03' THEN
                PERFORM set_config('lock_timeout', '1ms', true); -- once is patience enough
            END IF;
            BEGIN
                UPDATE @schema@.crons c
                   SET error = CASE WHEN state = '55P03' THEN c.error ELSE fault END,
                       failed_at = upto - CASE WHEN state = '55P03' THEN interval '59 seconds' ELSE '0' END
                 WHERE c.name = cron.name;
                IF NOT FOUND THEN
                    RAISE EXCEPTION '%', fault;
                END IF;
                SET CONSTRAINTS ALL IMMEDIATE;
            EXCEPTION WHEN OTHERS OR assert_failure THEN
                IF @schema@._is_passing(SQLSTATE) THEN
                    RAISE;
                END IF;
                RAISE WARNING 'cron %: it cannot fire, and the database refuses to note that: %', cron.name, fault
                    USING ERRCODE = '01JQ1';
            END;
        END;
    END LOOP;
    SELECT min(greatest(c.next_at, c.failed_at + interval '1 minute')) INTO next_at FROM @schema@.crons c
     WHERE c.next_at IS NOT NULL;
    IF next_at IS NOT NULL THEN
        next_ms := greatest(0, ceil(extract(epoch FROM next_at - clock_timestamp()) * 1000));
    END IF;
    IF waits.more THEN
        next_ms := 0;
    ELSIF waits.waiting OR EXISTS (SELECT FROM @schema@.cron_jobs c WHERE c.waits) THEN
        next_ms := least(next_ms, 200); -- nothing tells when the job has ended that another one waits for
    END IF;
END
$$;

-- A node has come up: enqueues the @reboot jobs if it is the first one. fired: how many. fresh: its process has just
-- started; it has not lost a lease and come back. Of several that come up at once the first one here is the first: its
-- mark is there when the others have the lock. remaining: crons that another session has locked, for which it is to be called
-- again.
CREATE OR REPLACE FUNCTION @schema@.cron_boot(node bigint, fresh boolean, OUT fired int, OUT remaining int)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
#variable_conflict use_variable
DECLARE
    cron @schema@.crons;
    todo text[];
    left_over text[] := '{}';
    done record;
BEGIN
    fired := 0;
    remaining := 0;
    SELECT n.boots_left INTO todo FROM @schema@.nodes n WHERE n.id = node AND (NOT n.booted OR n.boots_left <> '{}');
    IF NOT FOUND THEN
        RETURN;
    END IF;
    BEGIN
        PERFORM pg_advisory_xact_lock(hashtextextended('jobq boot @channel@', 0));
    EXCEPTION WHEN lock_not_available THEN
        remaining := 1;
        RETURN;
    END;
    UPDATE @schema@.nodes n SET booted = true WHERE n.id = node AND NOT n.booted;
    IF FOUND THEN
        IF NOT fresh OR EXISTS (SELECT FROM @schema@.nodes n
                                 WHERE n.id <> node AND n.booted AND n.expires_at > clock_timestamp()) THEN
            RETURN;
        END IF;
        todo := ARRAY(SELECT c.name FROM @schema@.crons c
                       WHERE lower(btrim(c.schedule, E' \t') COLLATE "C") = '@reboot' AND NOT c.paused ORDER BY c.name);
    END IF;
    FOR cron IN SELECT c.* FROM @schema@.crons c
                 WHERE c.name = ANY (todo) AND lower(btrim(c.schedule, E' \t') COLLATE "C") = '@reboot' AND NOT c.paused
                 ORDER BY c.name LOOP
        IF fired >= 60 THEN -- more subtransactions slow down everybody's snapshots
            left_over := left_over || cron.name;
            CONTINUE;
        END IF;
        BEGIN
            SELECT c.* INTO cron FROM @schema@.crons c WHERE c.name = cron.name FOR UPDATE NOWAIT;
            CONTINUE WHEN NOT FOUND;
            done := @schema@.cron_enqueue(cron, date_trunc('milliseconds', clock_timestamp()));
            UPDATE @schema@.crons c
               SET last_at = CASE WHEN done.added THEN clock_timestamp() ELSE c.last_at END,
                   last_job_id = CASE WHEN done.added THEN done.id ELSE c.last_job_id END,
                   skipped_at = CASE WHEN done.added THEN c.skipped_at ELSE clock_timestamp() END
             WHERE c.name = cron.name;
            SET CONSTRAINTS ALL IMMEDIATE;
            fired := fired + CASE WHEN done.added THEN 1 ELSE 0 END;
        EXCEPTION
            WHEN lock_not_available THEN
                left_over := left_over || cron.name;
                PERFORM set_config('lock_timeout', '1ms', true); -- once is patience enough
            WHEN OTHERS OR assert_failure THEN
                IF @schema@._is_passing(SQLSTATE) THEN
                    RAISE;
                END IF;
                RAISE WARNING 'cron %: its @reboot job could not be enqueued: %', cron.name, left(SQLERRM, 1000) USING ERRCODE = '01JQ1';
        END;
    END LOOP;
    UPDATE @schema@.nodes n SET boots_left = left_over WHERE n.id = node AND n.boots_left <> left_over;
    remaining := cardinality(left_over);
END
$$;

-- What a node's configuration has: an object of its sections by name, each with what it says of schedule, kind, args,
-- queue, timezone, priority, max_attempts, missed, timeout_ms, meta, overlap, expires_ms and
-- unique_by. A section counts when it is new or is not what
-- this node said last: what SQL or another node's newer section made of its row meanwhile stays until then. changed: rows
-- written or deleted; busy: rows that somebody else has locked, for which it is to be called again; fault: what was refused.
CREATE OR REPLACE FUNCTION @schema@.cron_declare(node text, sections jsonb, OUT changed int, OUT busy int, OUT fault text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
#variable_conflict use_variable
DECLARE
    section record;
    gone record;
    n int;
BEGIN
    changed := 0;
    busy := 0;
    -- First: where cron_sweep is about to let go of what this node said, we wait until it has, and say it anew.
    DELETE FROM @schema@.cron_away a WHERE a.node = cron_declare.node;
    FOR section IN SELECT s.key AS name, s.value AS d, encode(sha256(convert_to(s.value::text, 'UTF8')), 'hex') AS hash
                     FROM jsonb_each(sections) s ORDER BY s.key LOOP
        CONTINUE WHEN EXISTS (SELECT FROM @schema@.crons c
                               WHERE c.name = section.name AND c.declared_by ->> node = section.hash);
        BEGIN
            INSERT INTO @schema@.crons AS c (name, schedule, timezone, kind, args, queue, priority, max_attempts, missed,
                                             timeout_ms, meta, overlap, expires, unique_by, declared)
            VALUES (section.name, section.d ->> 'schedule', section.d ->> 'timezone', section.d ->> 'kind',
                    section.d -> 'args', section.d ->> 'queue', (section.d ->> 'priority')::int,
                    (section.d ->> 'max_attempts')::int, section.d ->> 'missed', (section.d ->> 'timeout_ms')::int,
                    section.d -> 'meta', coalesce(section.d ->> 'overlap', 'allow'),
                    (section.d ->> 'expires_ms')::bigint * interval '1 millisecond', section.d -> 'unique_by', section.d)
            ON CONFLICT (name) DO UPDATE
               SET schedule = excluded.schedule, timezone = excluded.timezone, kind = excluded.kind, args = excluded.args,
                   queue = excluded.queue, priority = excluded.priority, max_attempts = excluded.max_attempts,
                   missed = excluded.missed, timeout_ms = excluded.timeout_ms, meta = excluded.meta,
                   overlap = excluded.overlap, expires = excluded.expires, unique_by = excluded.unique_by,
                   declared = excluded.declared
             WHERE c.declared IS DISTINCT FROM excluded.declared;
            GET DIAGNOSTICS n = ROW_COUNT;
            changed := changed + n;
            UPDATE @schema@.crons c SET declared_by = c.declared_by || jsonb_build_object(node, section.hash)
             WHERE c.name = section.name;
            IF NOT FOUND THEN
                RAISE EXCEPTION 'a trigger or rule on crons keeps its row from being written'
                    USING ERRCODE = 'triggered_action_exception';
            END IF;
            SET CONSTRAINTS ALL IMMEDIATE;
        EXCEPTION
            WHEN lock_not_available THEN
                busy := busy + 1;
                PERFORM set_config('lock_timeout', '1ms', true);    -- once is patience enough
            WHEN OTHERS OR assert_failure THEN
                IF @schema@._is_passing(SQLSTATE) THEN
                    RAISE;
                END IF;
                fault := concat_ws('; ', fault,
                                   'cron ' || section.name || ': ' || regexp_replace(left(SQLERRM, 1000), '^jobq[.]crons: ', ''));
        END;
    END LOOP;
    gone := @schema@._cron_let_go(ARRAY(SELECT c.name FROM @schema@.crons c
                                         WHERE c.declared_by ? node AND NOT sections ? c.name), ARRAY[node]);
    changed := changed + gone.changed;
    fault := concat_ws('; ', fault, gone.fault);
    IF fault = '' THEN
        fault := NULL;
    END IF;
    busy := busy + (SELECT count(*) FROM @schema@.crons c
                     WHERE c.declared_by ? node AND NOT sections ? c.name AND c.name <> ALL (gone.refused));
END
$$;

-- Lets go of what nodes said that are gone for good: that have had no lease for a day. Such a day is one that was
-- watched: a node that keeps house calls this each minute, and where nobody has for five (no node was up, or
-- the clock was set) it begins anew; it ends when the node is back. removed: crons that no other node has; names: theirs. One
-- that the database refuses to delete is named in a warning.
CREATE OR REPLACE FUNCTION @schema@.cron_sweep(OUT removed int, OUT names text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
#variable_conflict use_variable
DECLARE
    now CONSTANT timestamptz := clock_timestamp();
    gone text[];
    theirs record;
BEGIN
    DELETE FROM @schema@.cron_jobs c
     USING (SELECT j.job_id, row_number() OVER (PARTITION BY j.cron ORDER BY j.job_id DESC) AS nth FROM @schema@.cron_jobs j) n
     WHERE n.job_id = c.job_id AND NOT c.waits
       AND (n.nth > 100 OR NOT EXISTS (SELECT FROM @schema@.crons k WHERE k.name = c.cron))
       AND NOT EXISTS (SELECT FROM @schema@.jobs j WHERE j.id = ANY (ARRAY[c.job_id]));
    DELETE FROM @schema@.cron_away a
     WHERE EXISTS (SELECT FROM @schema@.nodes n WHERE n.name = a.node AND n.expires_at > now)
        OR NOT EXISTS (SELECT FROM @schema@.crons c WHERE c.declared_by ? a.node);
    INSERT INTO @schema@.cron_away AS a (node, since, seen)
    SELECT d.node, now, now
      FROM (SELECT DISTINCT jsonb_object_keys(CASE WHEN jsonb_typeof(c.declared_by) = 'object' THEN c.declared_by ELSE '{}' END) AS node
            FROM @schema@.crons c) d
     WHERE NOT EXISTS (SELECT FROM @schema@.nodes n WHERE n.name = d.node AND n.expires_at > now)
     ORDER BY d.node
    ON CONFLICT (node) DO UPDATE
       SET since = CASE WHEN a.seen BETWEEN now - interval '5 minutes' AND now THEN a.since ELSE now END, seen = now;
    -- Their rows are ours until the transaction ends: none of these nodes declares anything meanwhile.
    gone := ARRAY(SELECT a.node FROM @schema@.cron_away a WHERE a.since <= now - interval '1 day' AND a.seen = now);
    theirs := @schema@._cron_let_go(ARRAY(SELECT c.name FROM @schema@.crons c WHERE c.declared_by ?| gone), gone);
    IF theirs.fault IS NOT NULL THEN
        RAISE WARNING '%', theirs.fault USING ERRCODE = '01JQ1';
    END IF;
    removed := cardinality(theirs.removed);
    names := nullif(array_to_string(theirs.removed, ', '), '');
END
$$;

DROP FUNCTION @schema@.cron_set(text, text, text, jsonb, text, text, int, int, text, jsonb, text[], int);
-- Adds a cron, or makes the one of that name so; one that is paused stays so.
CREATE FUNCTION @schema@.cron_set(name text, schedule text, kind text, args jsonb DEFAULT '{}', timezone text DEFAULT 'UTC',
    queue text DEFAULT 'default', priority int DEFAULT 0, max_attempts int DEFAULT NULL, missed text DEFAULT 'once',
    meta jsonb DEFAULT '{}', tags text[] DEFAULT '{}', timeout_ms int DEFAULT NULL,
    overlap text DEFAULT 'allow', expires interval DEFAULT NULL, unique_by jsonb DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO @schema@.crons (name, schedule, kind, args, timezone, queue, priority, max_attempts, missed, meta, tags,
                                timeout_ms, overlap, expires, unique_by)
    VALUES (cron_set.name, cron_set.schedule, cron_set.kind, cron_set.args, cron_set.timezone, cron_set.queue,
            cron_set.priority, cron_set.max_attempts, cron_set.missed, cron_set.meta, cron_set.tags, cron_set.timeout_ms,
            cron_set.overlap, cron_set.expires, cron_set.unique_by)
    ON CONFLICT (name) DO UPDATE
       SET schedule = excluded.schedule, kind = excluded.kind, args = excluded.args, timezone = excluded.timezone,
           queue = excluded.queue, priority = excluded.priority, max_attempts = excluded.max_attempts,
           missed = excluded.missed, meta = excluded.meta, tags = excluded.tags, timeout_ms = excluded.timeout_ms,
           overlap = excluded.overlap, expires = excluded.expires, unique_by = excluded.unique_by;
END
$$;

-- Enqueues its job now, paused or not, beside its schedule; returns the id. An error where overlap or unique_by
-- keeps it from that.
CREATE OR REPLACE FUNCTION @schema@.cron_run(name text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    cron CONSTANT @schema@.crons := @schema@.cron_find('cron_run', cron_run.name);
    done CONSTANT record := @schema@.cron_enqueue(cron, NULL);
BEGIN
    IF NOT done.added THEN
        RAISE EXCEPTION 'jobq.cron_run: cron % enqueues no job now: %', to_json(cron.name), done.why
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN done.id;
END
$$;
