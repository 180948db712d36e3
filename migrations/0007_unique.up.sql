-- jobq, migration 7: unique jobs by fields, keys, period and states; what a conflict does; the end of jobs that expire.

-- ---- who holds a key ----

-- Which job was the last to be enqueued with a key of unique_by (unique_hash). Whether it stands in a new one's way is
-- asked of the job itself, by the new one's states and period, so no row here changes when a job does. held_at is
-- the job's inserted_at. A row whose job is gone protects nothing; prune_uniques() takes it away in time. No job has two.
CREATE TABLE @schema@.uniques (
    key     bytea NOT NULL,
    job_id  bigint NOT NULL,
    held_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT uniques_pkey PRIMARY KEY (key)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX uniques_job_id ON @schema@.uniques (job_id);

-- An array of texts, sorted, each once; null of null.
CREATE FUNCTION @schema@.sorted_texts(texts jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_agg(t.text ORDER BY t.text COLLATE "C")
      FROM (SELECT DISTINCT e.text COLLATE "C" AS text FROM jsonb_array_elements_text(texts) e (text)) t
$$;

-- Of an object what stands under these keys; keys null: all of it.
CREATE FUNCTION @schema@.only_keys(object jsonb, keys jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN keys IS NULL THEN object
                ELSE (SELECT coalesce(jsonb_object_agg(k.key, object -> k.key), '{}')
                        FROM jsonb_array_elements_text(keys) k (key) WHERE object ? k.key) END
$$;

-- The key of a job: SHA-256 over the chosen parts, and which they are, as jsonb writes them (members sorted, each once).
CREATE FUNCTION @schema@.unique_hash(kind text, queue text, args jsonb, meta jsonb, unique_by jsonb) RETURNS bytea
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT sha256(convert_to(jsonb_build_object(
               'fields', chosen.fields, 'keys', chosen.keys,
               'kind', CASE WHEN chosen.fields ? 'kind' THEN unique_hash.kind END,
               'queue', CASE WHEN chosen.fields ? 'queue' THEN unique_hash.queue END,
               'args', CASE WHEN chosen.fields ? 'args' THEN @schema@.only_keys(unique_hash.args, chosen.keys) END,
               'meta', CASE WHEN chosen.fields ? 'meta' THEN @schema@.only_keys(unique_hash.meta, chosen.keys) END
           )::text, 'UTF8'))
      FROM (SELECT @schema@.sorted_texts(coalesce(unique_hash.unique_by -> 'fields', '["kind", "queue", "args"]')) AS fields,
                   @schema@.sorted_texts(unique_hash.unique_by -> 'keys') AS keys) chosen
$$;

-- ---- the checks ----

-- As before, with expires_at and the arguments of a conflict.
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
               WHEN 'expires_at' THEN 'null or a finite time, after scheduled_at where that is to come'
               WHEN 'unique_by' THEN 'null or a JSON object'
               WHEN 'unique_by.fields' THEN 'an array of one or more of kind, queue, args and meta'
               WHEN 'unique_by.keys' THEN 'an array of one or more texts'
               WHEN 'unique_by.period' THEN 'whole seconds, 1 to 2147483647, or "infinity"'
               WHEN 'unique_by.states' THEN 'an array of one or more of scheduled, available, executing, retryable,'
                    ' suspended, completed, cancelled and discarded'
               WHEN 'on_conflict' THEN '"ignore", "replace" or "raise"'
               WHEN 'replace.executing' THEN 'an array of one or more of args, meta, tags, max_attempts and timeout_ms'
               ELSE 'an array of one or more of args, meta, tags, priority, queue, kind, max_attempts, timeout_ms,'
                    ' scheduled_at and expires_at'
                    || CASE WHEN field = 'replace' THEN ', or an object of such arrays by state' ELSE '' END
           END || ', got ' || @schema@._shown(got)
$$;

-- As before, with expires_at. One that has passed already is no fault: the caller's transaction may have taken its time.
CREATE FUNCTION @schema@.job_fault(kind text, args jsonb, queue text, priority int,
    scheduled_at timestamptz, max_attempts int, key text, unique_key text, tags text[], meta jsonb,
    timeout_ms int, expires_at timestamptz DEFAULT NULL) RETURNS text LANGUAGE sql STABLE AS $$
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
        WHEN pg_catalog.pg_column_size(tags) > 65536
            THEN 'tags must take at most 65536 bytes, got ' || pg_catalog.pg_column_size(tags)
        WHEN meta IS NULL OR pg_catalog.jsonb_typeof(meta) <> 'object'
            THEN @schema@.job_fault_text('meta', meta)
        WHEN timeout_ms < 1
            THEN @schema@.job_fault_text('timeout_ms', pg_catalog.to_jsonb(timeout_ms))
        WHEN NOT pg_catalog.isfinite(expires_at)
             OR (expires_at <= scheduled_at AND scheduled_at > pg_catalog.now())
            THEN @schema@.job_fault_text('expires_at', pg_catalog.to_jsonb(expires_at))
        WHEN CASE WHEN pg_catalog.pg_column_size(args) <= 20 THEN false
                  WHEN pg_catalog.pg_column_size(args) <= 500 THEN pg_catalog.octet_length(args::text) > 4000
                  WHEN pg_catalog.pg_column_size(args #> '{}') <= 8192 THEN pg_catalog.octet_length(args::text) > 4000
                  ELSE true END
             OR CASE WHEN pg_catalog.pg_column_size(meta) <= 20 THEN false
                  WHEN pg_catalog.pg_column_size(meta) <= 500 THEN pg_catalog.octet_length(meta::text) > 4000
                  WHEN pg_catalog.pg_column_size(meta #> '{}') <= 8192 THEN pg_catalog.octet_length(meta::text) > 4000
                  ELSE true END
            THEN @schema@._content_fault(args, meta)
    END
$$;

-- Whether a value is anything else than an array of one or more texts that are among the allowed ones (null: any).
CREATE FUNCTION @schema@.is_no_list_of(value jsonb, allowed jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN jsonb_typeof(value) <> 'array' THEN true
                WHEN jsonb_array_length(value) = 0 THEN true
                WHEN jsonb_path_exists(value, 'strict $[*] ? (@.type() != "string")') THEN true
                ELSE NOT coalesce(value <@ allowed, true) END
$$;

-- The first fault in what is said about uniqueness and conflicts; null when there is none.
CREATE FUNCTION @schema@.conflict_fault(unique_key text, unique_by jsonb, on_conflict jsonb, "replace" jsonb)
RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    fields CONSTANT jsonb := '["args", "meta", "tags", "priority", "queue", "kind", "max_attempts", "timeout_ms",
                               "scheduled_at", "expires_at"]';
    state text;
BEGIN
    IF unique_by IS NOT NULL THEN
        IF jsonb_typeof(unique_by) <> 'object' THEN
            RETURN @schema@.job_fault_text('unique_by', unique_by);
        END IF;
        IF unique_by - '{fields,keys,period,states}'::text[] <> '{}' THEN
            RETURN (SELECT 'unique_by has an unknown member ' || to_json(min(m.name))
                           || ': allowed are fields, keys, period and states'
                      FROM jsonb_object_keys(unique_by - '{fields,keys,period,states}'::text[]) m (name));
        END IF;
        IF unique_by ? 'fields'
           AND @schema@.is_no_list_of(unique_by -> 'fields', '["kind", "queue", "args", "meta"]') THEN
            RETURN @schema@.job_fault_text('unique_by.fields', unique_by -> 'fields');
        END IF;
        IF unique_by ? 'keys' AND @schema@.is_no_list_of(unique_by -> 'keys', NULL) THEN
            RETURN @schema@.job_fault_text('unique_by.keys', unique_by -> 'keys');
        END IF;
        IF unique_by ? 'keys' AND NOT coalesce(unique_by -> 'fields' ?| '{args,meta}', true) THEN
            RETURN 'unique_by.keys needs args or meta among unique_by.fields, got ' || (unique_by -> 'fields')::text;
        END IF;
        IF unique_by ? 'period' AND unique_by -> 'period' <> '"infinity"'
           AND (CASE WHEN @schema@.json_is_no_int(unique_by -> 'period') THEN true
                     ELSE (unique_by -> 'period')::int < 1 END) THEN
            RETURN @schema@.job_fault_text('unique_by.period', unique_by -> 'period');
        END IF;
        IF unique_by ? 'states'
           AND @schema@.is_no_list_of(unique_by -> 'states', '["scheduled", "available", "executing", "retryable",
                                      "suspended", "completed", "cancelled", "discarded"]') THEN
            RETURN @schema@.job_fault_text('unique_by.states', unique_by -> 'states');
        END IF;
        IF unique_key IS NOT NULL THEN
            RETURN 'unique_by and unique_key exclude each other';
        END IF;
    END IF;
    IF coalesce(on_conflict NOT IN ('"ignore"', '"replace"', '"raise"'), true) THEN
        RETURN @schema@.job_fault_text('on_conflict', on_conflict);
    END IF;
    IF on_conflict <> '"replace"' THEN
        RETURN CASE WHEN "replace" IS NOT NULL
                    THEN 'replace goes with on_conflict "replace" alone, got it with ' || on_conflict::text END;
    END IF;
    IF "replace" IS NULL THEN
        RETURN 'replace must say what on_conflict "replace" replaces, got null';
    END IF;
    IF jsonb_typeof("replace") <> 'object' OR "replace" = '{}' THEN
        RETURN CASE WHEN @schema@.is_no_list_of("replace", fields)
                    THEN @schema@.job_fault_text('replace', "replace") END;
    END IF;
    FOR state IN SELECT s FROM jsonb_object_keys("replace") s ORDER BY s COLLATE "C" LOOP
        IF state NOT IN ('scheduled', 'available', 'executing', 'retryable', 'suspended') THEN
            RETURN 'replace has ' || CASE WHEN state IN ('completed', 'cancelled', 'discarded')
                       THEN 'the state ' || to_json(state) || ', in which a job has ended'
                       ELSE 'an unknown state ' || to_json(state) END
                   || ': allowed are scheduled, available, executing, retryable and suspended';
        END IF;
        IF @schema@.is_no_list_of("replace" -> state, CASE WHEN state = 'executing'
               THEN '["args", "meta", "tags", "max_attempts", "timeout_ms"]' ELSE fields END) THEN
            RETURN @schema@.job_fault_text('replace.' || state, "replace" -> state);
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;

-- A plain INSERT may leave out state and position: they follow from scheduled_at. Who inserts something
-- that is due sooner than the stager looks again tells it so. SECURITY DEFINER, because who may insert may not
-- call what is called here.
CREATE OR REPLACE FUNCTION @schema@.jobs_before_insert() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
    IF octet_length(NEW.unique_key) > 512 THEN -- or its index refuses it, in other words
        RAISE EXCEPTION 'jobq.jobs: %', @schema@.job_fault_text('unique_key', to_jsonb(NEW.unique_key))
            USING ERRCODE = 'invalid_parameter_value';
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

-- What is looked at in new jobs, and would be no CHECK constraint: that would look again with each claim. It is not in the
-- WHEN clause of the other trigger either, as it was: a trigger's condition is read from its text in the catalog by each
-- statement, and that was a third of what an INSERT of one row cost. What passes quickly is what nearly every job is; the
-- rest is looked at thoroughly. Then nodes are woken that wait idle for these jobs' queues.
CREATE OR REPLACE FUNCTION @schema@.jobs_after_insert() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    fault text;
BEGIN
    IF EXISTS (SELECT FROM inserted n
                WHERE greatest(n.id, n.position) > 9007199254740991 OR least(n.id, n.position) < 1 OR n.attempt > 1000
                      OR NOT isfinite(n.scheduled_at) OR n.unique_key = ''
                      OR (n.key IS NOT NULL AND octet_length(n.key) NOT BETWEEN 1 AND 512)
                      OR (n.expires_at IS NOT NULL AND (NOT isfinite(n.expires_at) OR n.expires_at <= n.scheduled_at
                                                                                      AND n.scheduled_at > now()))
                      -- the sizes that they have when they are empty
                      OR (pg_column_size(n.tags) + pg_column_size(n.errors || '[]') + pg_column_size(n.meta || '{}') > 32
                          AND (CASE WHEN array_ndims(n.tags) > 1 OR pg_column_size(n.tags) > 65536 THEN true
                                    ELSE array_position(n.tags, NULL) IS NOT NULL END
                               OR jsonb_typeof(n.errors) <> 'array' OR jsonb_typeof(n.meta) <> 'object'
                               OR pg_column_size(n.meta #> '{}') > 8192 OR octet_length(n.meta::text) > 4000))
                      -- an object stays what it is (but for its header's three bytes), anything else grows
                      OR pg_column_size(n.args || '{}') > pg_column_size(n.args) + 3
                      OR CASE WHEN pg_column_size(n.args) <= 20 THEN false
                              WHEN pg_column_size(n.args) <= 500 THEN octet_length(n.args::text) > 4000
                              ELSE pg_column_size(n.args #> '{}') > 8192 OR octet_length(n.args::text) > 4000 END) THEN
        SELECT f.fault || CASE WHEN n.rows > 1 THEN format(' (row %s of %s)', n.nth, n.rows) ELSE '' END INTO fault
          FROM (SELECT i.*, row_number() OVER () AS nth, count(*) OVER () AS rows FROM inserted i) n
         CROSS JOIN LATERAL (
                SELECT CASE
                    WHEN n.id NOT BETWEEN 1 AND 9007199254740991 THEN 'id must be 1 to 9007199254740991, got ' || n.id
                    WHEN n.position NOT BETWEEN 1 AND 9007199254740991
                        THEN 'position must be null or 1 to 9007199254740991, got ' || n.position
                    WHEN n.attempt > 1000 THEN 'attempt must be 0 to 1000, got ' || n.attempt
                    WHEN jsonb_typeof(n.errors) <> 'array' THEN 'errors must be a JSON array, got ' || @schema@._shown(n.errors)
                    ELSE @schema@.job_fault(n.kind, n.args, n.queue, n.priority::int, n.scheduled_at, n.max_attempts, n.key,
                                            n.unique_key, n.tags, n.meta, n.timeout_ms, n.expires_at) END AS fault) f
         WHERE f.fault IS NOT NULL
         LIMIT 1;
        IF fault IS NOT NULL THEN
            RAISE EXCEPTION 'jobq.jobs: %', fault USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END IF;
    IF EXISTS (SELECT FROM @schema@.idle) THEN
        PERFORM @schema@.wake(ARRAY(SELECT DISTINCT n.queue FROM inserted n WHERE n.position IS NOT NULL));
    END IF;
    RETURN NULL;
END
$$;

DROP FUNCTION @schema@.job_fault(text, jsonb, text, int, timestamptz, int, text, text, text[], jsonb, int);

-- ---- the end of jobs that have not begun by their time ----

-- Whether a job's time to begin is over and it has not begun: it is as good as ended. No SET: that it be inlined.
CREATE FUNCTION @schema@.has_expired(state @schema@.job_state, attempt int, expires_at timestamptz) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT coalesce(expires_at <= pg_catalog.now(), false) AND attempt = 0
           AND state IN ('scheduled', 'available', 'retryable', 'suspended')
$$;

-- Ends those of these jobs that have not begun by their expires_at, which waits for who has them locked; returns how many.
-- One whose first attempt has begun is left alone, whatever became of that.
CREATE FUNCTION @schema@.expire_these(ids bigint[]) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    expired int;
BEGIN
    WITH gone AS (
        DELETE FROM @schema@.jobs j
         WHERE j.id = ANY (ids) AND j.expires_at <= now() AND j.attempt = 0
           AND j.state IN ('scheduled', 'available', 'retryable', 'suspended')
        RETURNING j.*
    )
    INSERT INTO @schema@.finished_jobs (id, inserted_at, scheduled_at, attempted_at, attempted_by, finished_at,
           state, attempt, max_attempts, timeout_ms, priority, queue, kind, args, meta, tags, errors, key,
           unique_key, expires_at)
    SELECT g.id, g.inserted_at, g.scheduled_at, g.attempted_at, g.attempted_by, clock_timestamp(),
           'cancelled', g.attempt, g.max_attempts, g.timeout_ms, g.priority, g.queue, g.kind, g.args, g.meta, g.tags,
           @schema@._add_error(g.errors, jsonb_build_object('attempt', 0, 'at', now(), 'kind', 'expired', 'error',
               'not started by ' || to_char(g.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))),
           g.key, g.unique_key, g.expires_at
      FROM gone g;
    GET DIAGNOSTICS expired = ROW_COUNT;
    RETURN expired;
END
$$;

-- Ends up to 1000 jobs that have not begun by their expires_at; returns how many. Several may run at a time. since: what
-- expired before then is passed over. To sweep up the last seconds' often and all of it seldom spares to read each time what
-- is past its expiry for good: those whose first attempt has begun. A claim never hands out what has expired, swept or not.
CREATE FUNCTION @schema@.expire_jobs(since timestamptz DEFAULT '-infinity') RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_sort = off AS $$
#variable_conflict use_variable
DECLARE
    due bigint[];
BEGIN
    due := ARRAY(SELECT j.id
                   FROM @schema@.jobs j
                  WHERE j.expires_at <= now() AND j.expires_at >= since AND j.attempt = 0
                    AND j.state IN ('scheduled', 'available', 'retryable', 'suspended')
                  ORDER BY j.expires_at
                  LIMIT 1000
                    FOR UPDATE SKIP LOCKED);
    RETURN CASE WHEN cardinality(due) > 0 THEN @schema@.expire_these(due) ELSE 0 END;
END
$$;

-- ---- a conflict ----

-- The holder's state if it stands in the way of a new job with this unique_by, else null; and whether it is to be ended
-- first, since it has expired. One statement, so that a job on its way between the tables is seen in one of them; the
-- history is looked at only where ended states count, and from the day on at which the key was taken.
CREATE FUNCTION @schema@.conflicting_state(job_id bigint, held_at timestamptz, unique_by jsonb,
    OUT state @schema@.job_state, OUT expired boolean)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    states CONSTANT jsonb := coalesce(unique_by -> 'states',
        '["scheduled", "available", "executing", "retryable", "suspended", "completed"]');
    since CONSTANT timestamptz := held_at - interval '1 day'; -- a failover's clock may be behind
    period CONSTANT jsonb := coalesce(unique_by -> 'period', '"infinity"');
BEGIN
    expired := false;
    IF (CASE WHEN period = '"infinity"' THEN false
             ELSE held_at <= now() - period::int * interval '1 second' END) THEN
        RETURN;
    END IF;
    SELECT h.state, h.expired INTO state, expired
      FROM (SELECT j.state, @schema@.has_expired(j.state, j.attempt, j.expires_at) AS expired
              FROM @schema@.jobs j WHERE j.id = job_id
             UNION ALL
            SELECT f.state, false FROM @schema@.finished_completed f
             WHERE states ? 'completed' AND f.id = job_id AND f.finished_at >= since
             UNION ALL
            SELECT f.state, false FROM @schema@.finished_failed f
             WHERE states ?| '{cancelled,discarded}' AND f.id = job_id AND f.finished_at >= since) h;
    IF NOT coalesce(states ? state::text, false) THEN
        state := NULL;
        expired := false;
    END IF;
END
$$;

-- Changes these fields of a live job to the new one's, if it is still in that state: true. A job that waits keeps at least
-- one attempt; what becomes claimable, or moves to another line, has a new position in it.
CREATE FUNCTION @schema@.replace_fields(job_id bigint, was @schema@.job_state, job @schema@.jobs, fields jsonb)
RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    moves CONSTANT boolean := fields ? 'scheduled_at' AND was <> 'suspended';
    to_state CONSTANT @schema@.job_state := CASE
        WHEN moves AND was = 'available' AND job.scheduled_at > now() THEN 'scheduled'
        WHEN moves AND was IN ('scheduled', 'retryable') AND job.scheduled_at <= now() THEN 'available'
        ELSE was END;
    now_queue text;
    new_place boolean;
BEGIN
    UPDATE @schema@.jobs j
       SET state = to_state,
           position = CASE
               WHEN to_state NOT IN ('available', 'executing') THEN NULL
               WHEN was <> to_state OR (fields ? 'queue' AND j.queue <> job.queue)
                    OR (fields ? 'priority' AND j.priority <> job.priority) THEN @schema@.next_position()
               ELSE j.position END,
           args = CASE WHEN fields ? 'args' THEN job.args ELSE j.args END,
           meta = CASE WHEN fields ? 'meta' THEN job.meta ELSE j.meta END,
           tags = CASE WHEN fields ? 'tags' THEN job.tags ELSE j.tags END,
           priority = CASE WHEN fields ? 'priority' THEN job.priority ELSE j.priority END,
           queue = CASE WHEN fields ? 'queue' THEN job.queue ELSE j.queue END,
           kind = CASE WHEN fields ? 'kind' THEN job.kind ELSE j.kind END,
           max_attempts = CASE WHEN NOT fields ? 'max_attempts' THEN j.max_attempts
                               ELSE greatest(job.max_attempts,
                                             j.attempt + CASE WHEN was = 'executing' THEN 0 ELSE 1 END) END,
           timeout_ms = CASE WHEN fields ? 'timeout_ms' THEN job.timeout_ms ELSE j.timeout_ms END,
           scheduled_at = CASE WHEN fields ? 'scheduled_at' THEN job.scheduled_at ELSE j.scheduled_at END,
           expires_at = CASE WHEN fields ? 'expires_at' THEN job.expires_at ELSE j.expires_at END
     WHERE j.id = replace_fields.job_id AND j.state = was
    RETURNING j.queue INTO now_queue;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF to_state = 'available' AND (was <> to_state OR fields ?| '{queue,priority}') THEN
        PERFORM @schema@.wake(ARRAY[now_queue]);
    ELSIF to_state IN ('scheduled', 'retryable') AND moves AND job.scheduled_at < now() + interval '2 seconds' THEN
        PERFORM @schema@._notify('stage');
    END IF;
    RETURN true;
END
$$;

-- What a job that is there already means for the new one: ignored or replaced, or an error; null: it is not as it was when
-- we looked, look again. subject: how an error begins.
CREATE FUNCTION @schema@.conflict_answer(subject text, job_id bigint, its_state @schema@.job_state, job @schema@.jobs,
    unique_by jsonb, on_conflict text, "replace" jsonb) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    fields jsonb;
BEGIN
    IF on_conflict = 'raise' THEN
        RAISE EXCEPTION 'jobq.% is not unique: job %, %, has the same %', subject, job_id, its_state,
            CASE WHEN unique_by IS NULL THEN 'unique key, ' || to_json(job.unique_key)
                 ELSE regexp_replace(array_to_string(ARRAY(
                          SELECT f.name
                            FROM unnest('{kind,queue,args,meta}'::text[]) WITH ORDINALITY f (name, nth)
                           WHERE coalesce(unique_by -> 'fields', '["kind", "queue", "args"]') ? f.name
                           ORDER BY f.nth), ', '), ', ([a-z]+)$', E' and \\1')
                      || coalesce(' (of the keys ' || substr((unique_by -> 'keys')::text, 2,
                                      length((unique_by -> 'keys')::text) - 2) || ')', '') END
            USING ERRCODE = 'unique_violation';
    END IF;
    IF on_conflict = 'replace' THEN
        fields := CASE WHEN jsonb_typeof("replace") = 'object' THEN "replace" -> its_state::text
                       WHEN its_state IN ('scheduled', 'available', 'retryable', 'suspended') THEN "replace" END;
        IF fields IS NOT NULL THEN
            RETURN CASE WHEN @schema@.replace_fields(job_id, its_state, job, fields) THEN 'replaced' END;
        END IF;
    END IF;
    RETURN 'ignored';
END
$$;

-- Adds one job, or finds the one that is in its way. All arguments are checked already. job: the row to be; an id and a
-- position that it has are used. conflict: null (added), ignored, replaced.
--
-- The primary key of uniques decides between two that come at once: the second waits until the first has
-- committed or rolled back. A look without a lock comes first, so that the many that conflict do not wait for each
-- other; who would take a key over from a job that is not in the way does so under the row's lock, having looked again.
-- One that has expired is in nobody's way, whether or not the leader has swept it up. Each turn needs a commit of
-- somebody else's, or ends such a job, so the loops end.
CREATE FUNCTION @schema@.add_job(subject text, job @schema@.jobs, unique_by jsonb, on_conflict text, "replace" jsonb,
    OUT id bigint, OUT conflict text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    hash CONSTANT bytea := CASE WHEN unique_by IS NOT NULL
        THEN @schema@.unique_hash(job.kind, job.queue, job.args, job.meta, unique_by) END;
    holder record;
    conflicting record;
    its_state @schema@.job_state;
BEGIN
    FOR turn IN 1 .. 1000 LOOP
        its_state := NULL;
        IF hash IS NOT NULL THEN
            SELECT u.job_id, u.held_at INTO holder FROM @schema@.uniques u WHERE u.key = hash;
            IF NOT FOUND THEN
                job.id := coalesce(job.id, nextval('@schema@.jobs_id_seq'));
                INSERT INTO @schema@.uniques (key, job_id) VALUES (hash, job.id) ON CONFLICT DO NOTHING;
                CONTINUE WHEN NOT FOUND;
            ELSE
                conflicting := @schema@.conflicting_state(holder.job_id, holder.held_at, unique_by);
                IF conflicting.state IS NULL OR conflicting.expired THEN
                    SELECT u.job_id, u.held_at INTO holder FROM @schema@.uniques u WHERE u.key = hash FOR UPDATE;
                    CONTINUE WHEN NOT FOUND;
                    conflicting := @schema@.conflicting_state(holder.job_id, holder.held_at, unique_by);
                    IF conflicting.expired THEN
                        PERFORM @schema@.expire_these(ARRAY[holder.job_id]);
                        CONTINUE;
                    END IF;
                END IF;
                its_state := conflicting.state;
                IF its_state IS NULL THEN
                    job.id := coalesce(job.id, nextval('@schema@.jobs_id_seq'));
                    UPDATE @schema@.uniques u SET job_id = job.id, held_at = now() WHERE u.key = hash;
                END IF;
            END IF;
        END IF;

        IF its_state IS NULL THEN
            INSERT INTO @schema@.jobs (id, position, kind, args, queue, priority, scheduled_at, max_attempts, key,
                                       unique_key, tags, meta, timeout_ms, expires_at)
            VALUES (coalesce(job.id, nextval('@schema@.jobs_id_seq')), coalesce(job.position, @schema@.next_position()),
                    job.kind, job.args, job.queue, job.priority, job.scheduled_at, job.max_attempts, job.key,
                    job.unique_key, job.tags, job.meta, job.timeout_ms, job.expires_at)
            ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL DO NOTHING
            RETURNING jobs.id INTO add_job.id;
            IF FOUND THEN
                RETURN;
            END IF;
            SELECT j.id AS job_id, j.state, @schema@.has_expired(j.state, j.attempt, j.expires_at) AS expired INTO holder
              FROM @schema@.jobs j WHERE j.unique_key = job.unique_key;
            CONTINUE WHEN NOT FOUND; -- it has ended between the two statements
            IF holder.expired THEN
                PERFORM @schema@.expire_these(ARRAY[holder.job_id]);
                CONTINUE;
            END IF;
            its_state := holder.state;
        END IF;

        conflict := @schema@.conflict_answer(subject, holder.job_id, its_state, job, unique_by, on_conflict, "replace");
        IF conflict IS NOT NULL THEN
            id := holder.job_id;
            RETURN;
        END IF;
    END LOOP;
    RAISE EXCEPTION 'jobq.%: the job cannot be added: a trigger or rule on jobs keeps rows from being changed', subject
        USING ERRCODE = 'triggered_action_exception';
END
$$;

-- ---- enqueue ----

-- Adds a job and returns its id. Where a live job has the unique_key, or a job is in the way by unique_by, on_conflict
-- says what happens: nothing ("ignore"), that job's `replace` fields become this one's ("replace"), or an error ("raise");
-- its id is returned. SECURITY DEFINER for the look-up: an enqueuer may not read the jobs.
DROP FUNCTION @schema@.enqueue(text, jsonb, text, int, timestamptz, int, text, text, text[], jsonb, int);
CREATE FUNCTION @schema@.enqueue(kind text, args jsonb DEFAULT '{}', queue text DEFAULT 'default',
    priority int DEFAULT 0, scheduled_at timestamptz DEFAULT NULL, max_attempts int DEFAULT 20,
    key text DEFAULT NULL, unique_key text DEFAULT NULL, tags text[] DEFAULT '{}',
    meta jsonb DEFAULT '{}', timeout_ms int DEFAULT NULL, unique_by jsonb DEFAULT NULL,
    on_conflict text DEFAULT 'ignore', "replace" jsonb DEFAULT NULL, expires_at timestamptz DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    fault text := @schema@.job_fault(enqueue.kind, enqueue.args, enqueue.queue, enqueue.priority,
                                     enqueue.scheduled_at, enqueue.max_attempts, enqueue.key,
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
                coalesce(enqueue.scheduled_at, now()), enqueue.max_attempts, enqueue.key, enqueue.tags,
                enqueue.meta, enqueue.timeout_ms, enqueue.expires_at)
        RETURNING id INTO job_id;
        RETURN job_id;
    END IF;
    SELECT a.id INTO job_id
      FROM @schema@.enqueue_unique('enqueue', enqueue.kind, enqueue.args, enqueue.queue, enqueue.priority,
               enqueue.scheduled_at, enqueue.max_attempts, enqueue.key, enqueue.unique_key, enqueue.tags,
               enqueue.meta, enqueue.timeout_ms, enqueue.unique_by, enqueue.on_conflict, enqueue."replace",
               enqueue.expires_at) a;
    RETURN job_id;
END
$$;

-- The job of enqueue or try_enqueue, once job_fault has passed it.
CREATE FUNCTION @schema@.enqueue_unique(caller text, kind text, args jsonb, queue text, priority int,
    scheduled_at timestamptz, max_attempts int, key text, unique_key text, tags text[], meta jsonb, timeout_ms int,
    unique_by jsonb, on_conflict text, "replace" jsonb, expires_at timestamptz, OUT id bigint, OUT conflict text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    rule CONSTANT jsonb := nullif(unique_by, 'null');
    fields CONSTANT jsonb := nullif("replace", 'null');
    fault CONSTANT text := @schema@.conflict_fault(unique_key, rule, to_jsonb(on_conflict), fields);
    job @schema@.jobs;
BEGIN
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION 'jobq.%: %', caller, fault USING ERRCODE = 'invalid_parameter_value';
    END IF;
    job.kind := kind;
    job.args := args;
    job.queue := queue;
    job.priority := priority;
    job.scheduled_at := coalesce(scheduled_at, now());
    job.max_attempts := max_attempts;
    job.key := key;
    job.unique_key := unique_key;
    job.tags := tags;
    job.meta := meta;
    job.timeout_ms := timeout_ms;
    job.expires_at := expires_at;
    SELECT a.id, a.conflict INTO id, conflict
      FROM @schema@.add_job(caller || ': the job', job, rule, on_conflict, fields) a;
END
$$;

-- enqueue, and what came of it: conflict is null (added), 'ignored' or 'replaced' (id is that of the job that was there).
CREATE FUNCTION @schema@.try_enqueue(kind text, args jsonb DEFAULT '{}', queue text DEFAULT 'default',
    priority int DEFAULT 0, scheduled_at timestamptz DEFAULT NULL, max_attempts int DEFAULT 20,
    key text DEFAULT NULL, unique_key text DEFAULT NULL, tags text[] DEFAULT '{}',
    meta jsonb DEFAULT '{}', timeout_ms int DEFAULT NULL, unique_by jsonb DEFAULT NULL,
    on_conflict text DEFAULT 'ignore', "replace" jsonb DEFAULT NULL, expires_at timestamptz DEFAULT NULL)
RETURNS TABLE (id bigint, conflict text)
LANGUAGE plpgsql SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    fault text := @schema@.job_fault(try_enqueue.kind, try_enqueue.args, try_enqueue.queue, try_enqueue.priority,
                                     try_enqueue.scheduled_at, try_enqueue.max_attempts, try_enqueue.key,
                                     try_enqueue.unique_key, try_enqueue.tags, try_enqueue.meta,
                                     try_enqueue.timeout_ms, try_enqueue.expires_at);
BEGIN
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION 'jobq.try_enqueue: %', fault USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN QUERY
        SELECT a.id, a.conflict
          FROM @schema@.enqueue_unique('try_enqueue', try_enqueue.kind, try_enqueue.args, try_enqueue.queue,
                   try_enqueue.priority, try_enqueue.scheduled_at, try_enqueue.max_attempts, try_enqueue.key,
                   try_enqueue.unique_key, try_enqueue.tags, try_enqueue.meta, try_enqueue.timeout_ms,
                   try_enqueue.unique_by, try_enqueue.on_conflict, try_enqueue."replace",
                   try_enqueue.expires_at) a;
END
$$;

-- ---- enqueue_many ----

CREATE OR REPLACE FUNCTION @schema@.json_unknown_key_text(job jsonb) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ' has an unknown key ' || to_json(min(unknown.key)) || ': allowed are kind, args, queue, priority,'
           ' scheduled_at, max_attempts, key, unique_key, tags, meta, timeout_ms, unique_by, on_conflict, replace'
           ' and expires_at'
      FROM jsonb_object_keys(job
           - '{kind,args,queue,priority,scheduled_at,max_attempts,key,unique_key,tags,meta,timeout_ms,unique_by,on_conflict,replace,expires_at}'::text[])
           AS unknown (key)
$$;

-- As before, with what is new. A time that is none is not found here: the cast itself raises.
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
        ELSE coalesce(
            '.' || @schema@.job_fault(job ->> 'kind', '{}',
                coalesce(job ->> 'queue', 'default'), coalesce((job -> 'priority')::int, 0),
                (job ->> 'scheduled_at')::timestamptz, coalesce((job -> 'max_attempts')::int, 20),
                job ->> 'key', job ->> 'unique_key', '{}', '{}',
                nullif(job -> 'timeout_ms', 'null')::int, (job ->> 'expires_at')::timestamptz),
            CASE WHEN pg_catalog.pg_column_size(job) > 500
                      AND (pg_catalog.pg_column_size(job) > 8192 OR pg_catalog.octet_length(job::text) > 4000)
                 THEN '.' || @schema@._content_fault(job -> 'args', job -> 'meta') END,
            CASE WHEN job ?| '{unique_by,on_conflict,replace}'
                 THEN '.' || @schema@.conflict_fault(job ->> 'unique_key', nullif(job -> 'unique_by', 'null'),
                        coalesce(job -> 'on_conflict', '"ignore"'), nullif(job -> 'replace', 'null')) END)
    END
$$;

-- Raises the error for the first wrong element of the array. Only called when there is one: it looks at each element by
-- itself, to find a time whose cast fails.
DROP FUNCTION @schema@.raise_json_job_fault(jsonb);
CREATE FUNCTION @schema@.raise_json_job_fault(caller text, jobs jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    i bigint;
    job jsonb;
    fault text;
BEGIN
    FOR i, job IN SELECT e.ord - 1, e.job FROM jsonb_array_elements(jobs) WITH ORDINALITY e (job, ord) LOOP
        BEGIN
            fault := @schema@.json_job_fault(job);
        EXCEPTION WHEN data_exception THEN
            BEGIN
                PERFORM (job ->> 'scheduled_at')::timestamptz;
                fault := '.' || @schema@.job_fault_text('expires_at', job -> 'expires_at');
            EXCEPTION WHEN data_exception THEN
                fault := '.' || @schema@.job_fault_text('scheduled_at', job -> 'scheduled_at');
            END;
        END;
        IF fault IS NOT NULL THEN
            RAISE EXCEPTION 'jobq.%: jobs[%]%', caller, i, fault USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END LOOP;
END
$$;

DROP FUNCTION @schema@.json_jobs(jsonb);
CREATE FUNCTION @schema@.json_jobs(jobs jsonb) RETURNS TABLE (ord bigint, kind text, args jsonb, queue text,
    priority int, scheduled_at timestamptz, max_attempts int, key text, unique_key text, tags text[],
    meta jsonb, timeout_ms int, unique_by jsonb, on_conflict text, "replace" jsonb, expires_at timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT e.ord, e.job ->> 'kind', coalesce(e.job -> 'args', '{}'), coalesce(e.job ->> 'queue', 'default'),
           coalesce((e.job -> 'priority')::int, 0),
           coalesce((e.job ->> 'scheduled_at')::timestamptz, pg_catalog.now()),
           coalesce((e.job -> 'max_attempts')::int, 20), e.job ->> 'key', e.job ->> 'unique_key',
           CASE WHEN e.job ? 'tags'
                THEN ARRAY(SELECT pg_catalog.jsonb_array_elements_text(e.job -> 'tags')) ELSE '{}' END,
           coalesce(e.job -> 'meta', '{}'), nullif(e.job -> 'timeout_ms', 'null')::int,
           nullif(e.job -> 'unique_by', 'null'), coalesce(e.job ->> 'on_conflict', 'ignore'),
           nullif(e.job -> 'replace', 'null'), (e.job ->> 'expires_at')::timestamptz
      FROM pg_catalog.jsonb_array_elements(jobs) WITH ORDINALITY e (job, ord)
$$;

-- The jobs of enqueue_many when some are to be unique. Ids and positions are taken in the order of the array. Those with
-- unique_by come first, in the order of their keys' hashes, then those with unique_key, in the order of those: so two
-- callers with the same keys do not deadlock. The first of two in the array with the same key is added, and is in
-- the second one's way (unless it has expired by then).
DROP FUNCTION @schema@.enqueue_many_unique(jsonb);
CREATE FUNCTION @schema@.enqueue_many_unique(caller text, jobs jsonb) RETURNS TABLE (id bigint, conflict text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    n CONSTANT int := jsonb_array_length(jobs);
    new_ids CONSTANT bigint[] :=
        ARRAY(SELECT nextval('@schema@.jobs_id_seq') FROM generate_series(1, n));
    ids bigint[] := array_fill(NULL::bigint, ARRAY[n]);
    conflicts text[] := array_fill(NULL::text, ARRAY[n]);
    positions bigint[] := ARRAY(SELECT @schema@.next_position() FROM generate_series(1, n));
    -- Whether each conflict must be dealt with by itself.
    singly boolean := jsonb_path_exists(jobs, '$[*] ? (@.unique_by != null || @.on_conflict != "ignore")');
    given record;
    done record;
    job @schema@.jobs;
BEGIN
    LOOP
        IF singly THEN
            FOR given IN
                SELECT j.*
                  FROM @schema@.json_jobs(enqueue_many_unique.jobs) j
                 WHERE j.unique_by IS NOT NULL OR j.unique_key IS NOT NULL
                 ORDER BY CASE WHEN j.unique_by IS NOT NULL
                               THEN @schema@.unique_hash(j.kind, j.queue, j.args, j.meta, j.unique_by) END NULLS LAST,
                          j.unique_key, j.ord
            LOOP
                job.id := new_ids[given.ord];
                job.position := positions[given.ord];
                job.kind := given.kind;
                job.args := given.args;
                job.queue := given.queue;
                job.priority := given.priority;
                job.scheduled_at := given.scheduled_at;
                job.max_attempts := given.max_attempts;
                job.key := given.key;
                job.unique_key := given.unique_key;
                job.tags := given.tags;
                job.meta := given.meta;
                job.timeout_ms := given.timeout_ms;
                job.expires_at := given.expires_at;
                SELECT a.id, a.conflict INTO done
                  FROM @schema@.add_job(caller || ': jobs[' || given.ord - 1 || ']', job, given.unique_by,
                                        given.on_conflict, given."replace") a;
                ids[given.ord] := done.id;
                conflicts[given.ord] := done.conflict;
            END LOOP;
        END IF;

        -- The rest, and all where a conflict needs nothing but an answer. A holder that ended between the two statements
        -- leaves a gap, and so does one that has expired. To fill it now would be out of order, with later keys in our
        -- hands: so those are let go, and it begins anew, one by one.
        BEGIN
            INSERT INTO @schema@.jobs (id, position, kind, args, queue, priority, scheduled_at, max_attempts, key,
                                       unique_key, tags, meta, timeout_ms, expires_at)
            SELECT new_ids[j.ord], positions[j.ord], j.kind, j.args, j.queue, j.priority, j.scheduled_at,
                   j.max_attempts, j.key, j.unique_key, j.tags, j.meta, j.timeout_ms, j.expires_at
              FROM @schema@.json_jobs(enqueue_many_unique.jobs) j
             WHERE ids[j.ord] IS NULL
             ORDER BY j.unique_key, j.ord
            ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL DO NOTHING;

            ids := ARRAY(SELECT coalesce(ids[j.ord],
                                         CASE WHEN j.unique_key IS NULL THEN new_ids[j.ord]
                                              WHEN NOT @schema@.has_expired(live.state, live.attempt, live.expires_at)
                                              OR live.id IN (SELECT unnest(new_ids)) THEN live.id END)
                           FROM @schema@.json_jobs(enqueue_many_unique.jobs) j
                           LEFT JOIN @schema@.jobs live
                                  ON live.unique_key = j.unique_key AND live.unique_key IS NOT NULL
                          ORDER BY j.ord);
            EXIT WHEN array_position(ids, NULL) IS NULL;
            RAISE EXCEPTION 'a gap' USING ERRCODE = 'JQGAP';
        EXCEPTION WHEN SQLSTATE 'JQGAP' THEN
            ids := array_fill(NULL::bigint, ARRAY[n]);
            singly := true;
        END;
    END LOOP;
    RETURN QUERY
        SELECT a.id, coalesce(a.conflict, CASE WHEN a.id <> a.new_id THEN 'ignored' END)
          FROM unnest(ids, conflicts, new_ids) WITH ORDINALITY a (id, conflict, new_id, ord)
         ORDER BY a.ord;
END
$$;

-- Checks the array of enqueue_many or try_enqueue_many; says whether some of its jobs are to be unique.
CREATE FUNCTION @schema@.check_jobs(caller text, jobs jsonb) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
    IF jsonb_typeof(jobs) IS DISTINCT FROM 'array' THEN
        RAISE EXCEPTION 'jobq.%: jobs must be a JSON array of objects, got %', caller,
            @schema@._shown(jobs) USING ERRCODE = 'invalid_parameter_value';
    END IF;
    BEGIN
        IF EXISTS (SELECT FROM jsonb_array_elements(jobs) e (job) WHERE @schema@.json_job_fault(e.job) IS NOT NULL) THEN
            PERFORM @schema@.raise_json_job_fault(caller, jobs);
        END IF;
    EXCEPTION WHEN data_exception THEN
        PERFORM @schema@.raise_json_job_fault(caller, jobs);
        RAISE;
    END;
    RETURN jsonb_path_exists(jobs, '$[*] ? (@.unique_key != null || @.unique_by != null)');
END
$$;

-- Adds an array of objects whose keys are enqueue's argument names; returns the ids in the array's order. All or
-- nothing: one wrong element, and none is added.
CREATE OR REPLACE FUNCTION @schema@.enqueue_many(jobs jsonb) RETURNS SETOF bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF @schema@.check_jobs('enqueue_many', enqueue_many.jobs) THEN
        RETURN QUERY SELECT a.id FROM @schema@.enqueue_many_unique('enqueue_many', enqueue_many.jobs) a;
        RETURN;
    END IF;
    RETURN QUERY
        INSERT INTO @schema@.jobs (kind, args, queue, priority, scheduled_at, max_attempts, key, tags, meta,
                                   timeout_ms, expires_at)
        SELECT j.kind, j.args, j.queue, j.priority, j.scheduled_at, j.max_attempts, j.key, j.tags, j.meta,
               j.timeout_ms, j.expires_at
          FROM @schema@.json_jobs(enqueue_many.jobs) j ORDER BY j.ord
        RETURNING id;
END
$$;

-- The same, and what came of each, as try_enqueue says it.
CREATE FUNCTION @schema@.try_enqueue_many(jobs jsonb) RETURNS TABLE (id bigint, conflict text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF @schema@.check_jobs('try_enqueue_many', try_enqueue_many.jobs) THEN
        RETURN QUERY
            SELECT a.id, a.conflict FROM @schema@.enqueue_many_unique('try_enqueue_many', try_enqueue_many.jobs) a;
        RETURN;
    END IF;
    RETURN QUERY
        INSERT INTO @schema@.jobs (kind, args, queue, priority, scheduled_at, max_attempts, key, tags, meta,
                                   timeout_ms, expires_at)
        SELECT j.kind, j.args, j.queue, j.priority, j.scheduled_at, j.max_attempts, j.key, j.tags, j.meta,
               j.timeout_ms, j.expires_at
          FROM @schema@.json_jobs(try_enqueue_many.jobs) j ORDER BY j.ord
        RETURNING id, NULL::text;
END
$$;

-- ---- housekeeping ----

-- Takes away keys that protect nothing any more, since their job is neither live nor in the history: looks at up to 1000 of
-- them, from the job `after` on, and at no more of the history than lies between. Returns how many went, and where to
-- go on; null: that was the end.
--
-- Who holds what is looked at first, then the rows are locked: a key that was taken over meanwhile has another job.
-- A job that is not committed yet has no committed key either.
CREATE FUNCTION @schema@.prune_uniques(INOUT after bigint DEFAULT 0, OUT pruned int)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_nestloop = off AS $$
#variable_conflict use_variable
DECLARE
    span CONSTANT bigint := 100000;
    first_id bigint;
    last_id bigint;
    dead bytea[];
    dead_ids bigint[];
BEGIN
    pruned := 0;
    first_id := (SELECT u.job_id FROM @schema@.uniques u
                  WHERE u.job_id > coalesce(prune_uniques.after, 0) ORDER BY u.job_id LIMIT 1);
    IF first_id IS NULL THEN
        after := NULL;
        RETURN;
    END IF;
    SELECT max(b.job_id) INTO last_id
      FROM (SELECT u.job_id FROM @schema@.uniques u
             WHERE u.job_id >= first_id AND u.job_id < first_id + span ORDER BY u.job_id LIMIT 1000) b;
    SELECT array_agg(u.key), array_agg(u.job_id) INTO dead, dead_ids
      FROM @schema@.uniques u
      LEFT JOIN (SELECT j.id FROM @schema@.jobs j WHERE j.id BETWEEN first_id AND last_id
                  UNION ALL
                 SELECT f.id FROM @schema@.finished_jobs f WHERE f.id BETWEEN first_id AND last_id) known
        ON known.id = u.job_id
     WHERE u.job_id BETWEEN first_id AND last_id AND known.id IS NULL;
    pruned := d.deleted FROM @schema@._delete_apart('uniques', ARRAY(
           SELECT l.ctid FROM @schema@.uniques l
            WHERE l.key = ANY (dead) AND l.job_id = ANY (dead_ids)
              FOR UPDATE SKIP LOCKED)) d;
    after := last_id;
END
$$;

-- Late, since its lock on jobs is held until the end.
DROP TRIGGER jobs_before_insert ON @schema@.jobs;
CREATE TRIGGER jobs_before_insert BEFORE INSERT ON @schema@.jobs FOR EACH ROW
    WHEN (NEW.scheduled_at > now() OR NEW.state <> 'available' OR NEW.position IS NULL OR octet_length(NEW.unique_key) > 512)
    EXECUTE FUNCTION @schema@.jobs_before_insert();
