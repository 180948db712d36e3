-- Unique jobs: by unique_key, and by fields, keys, period and states (unique_by); conflicts; jobs that expire.

CREATE OR REPLACE FUNCTION @schema@._only_keys(object jsonb, keys jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN keys IS NULL THEN object
                ELSE (SELECT coalesce(jsonb_object_agg(k.key, object -> k.key), '{}')
                        FROM jsonb_array_elements_text(keys) k (key) WHERE object ? k.key) END
$$;
COMMENT ON FUNCTION @schema@._only_keys IS
    'The members of an object that have one of these keys; keys null: the whole object.';

-- It hashes the text that jsonb writes: members sorted, each once.
CREATE OR REPLACE FUNCTION @schema@._unique_hash(kind text, queue text, args jsonb, meta jsonb, unique_by jsonb) RETURNS bytea
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT sha256(convert_to(jsonb_build_object(
               'fields', chosen.fields, 'keys', chosen.keys,
               'kind', CASE WHEN chosen.fields ? 'kind' THEN _unique_hash.kind END,
               'queue', CASE WHEN chosen.fields ? 'queue' THEN _unique_hash.queue END,
               'args', CASE WHEN chosen.fields ? 'args' THEN @schema@._only_keys(_unique_hash.args, chosen.keys) END,
               'meta', CASE WHEN chosen.fields ? 'meta' THEN @schema@._only_keys(_unique_hash.meta, chosen.keys) END
           )::text, 'UTF8'))
      FROM (SELECT @schema@._sorted_texts(coalesce(_unique_hash.unique_by -> 'fields', '["kind", "queue", "args"]')) AS fields,
                   @schema@._sorted_texts(_unique_hash.unique_by -> 'keys') AS keys) chosen
$$;
COMMENT ON FUNCTION @schema@._unique_hash IS
    'The key of a job with unique_by: SHA-256 over the chosen parts, and over which they are.';

CREATE OR REPLACE FUNCTION @schema@._conflict_fault(unique_key text, unique_by jsonb, on_conflict jsonb, "replace" jsonb)
RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    fields CONSTANT jsonb := '["args", "meta", "tags", "priority", "queue", "kind", "max_attempts", "timeout_ms",
                               "scheduled_at", "expires_at"]';
    state text;
BEGIN
    IF unique_by IS NOT NULL THEN
        IF jsonb_typeof(unique_by) <> 'object' THEN
            RETURN @schema@._job_fault_text('unique_by', unique_by);
        END IF;
        IF unique_by - '{fields,keys,period,states}'::text[] <> '{}' THEN
            RETURN (SELECT 'unique_by has an unknown member ' || to_json(min(m.name))
                           || ': allowed are fields, keys, period and states'
                      FROM jsonb_object_keys(unique_by - '{fields,keys,period,states}'::text[]) m (name));
        END IF;
        IF unique_by ? 'fields'
           AND @schema@._is_no_list_of(unique_by -> 'fields', '["kind", "queue", "args", "meta"]') THEN
            RETURN @schema@._job_fault_text('unique_by.fields', unique_by -> 'fields');
        END IF;
        IF unique_by ? 'keys' AND @schema@._is_no_list_of(unique_by -> 'keys', NULL) THEN
            RETURN @schema@._job_fault_text('unique_by.keys', unique_by -> 'keys');
        END IF;
        IF unique_by ? 'keys' AND NOT coalesce(unique_by -> 'fields' ?| '{args,meta}', true) THEN
            RETURN 'unique_by.keys needs args or meta among unique_by.fields, got ' || (unique_by -> 'fields')::text;
        END IF;
        IF unique_by ? 'period' AND unique_by -> 'period' <> '"infinity"'
           AND (CASE WHEN @schema@._json_is_no_int(unique_by -> 'period') THEN true
                     ELSE (unique_by -> 'period')::int < 1 END) THEN
            RETURN @schema@._job_fault_text('unique_by.period', unique_by -> 'period');
        END IF;
        IF unique_by ? 'states'
           AND @schema@._is_no_list_of(unique_by -> 'states', '["scheduled", "available", "executing", "retryable",
                                      "suspended", "completed", "cancelled", "discarded"]') THEN
            RETURN @schema@._job_fault_text('unique_by.states', unique_by -> 'states');
        END IF;
        IF unique_key IS NOT NULL THEN
            RETURN 'unique_by and unique_key cannot both be set';
        END IF;
    END IF;
    IF coalesce(on_conflict NOT IN ('"ignore"', '"replace"', '"raise"'), true) THEN
        RETURN @schema@._job_fault_text('on_conflict', on_conflict);
    END IF;
    IF on_conflict <> '"replace"' THEN
        RETURN CASE WHEN "replace" IS NOT NULL
                    THEN 'replace is allowed only with on_conflict "replace", got it with ' || on_conflict::text END;
    END IF;
    IF "replace" IS NULL THEN
        RETURN 'replace must say what on_conflict "replace" replaces, got null';
    END IF;
    IF jsonb_typeof("replace") <> 'object' OR "replace" = '{}' THEN
        RETURN CASE WHEN @schema@._is_no_list_of("replace", fields)
                    THEN @schema@._job_fault_text('replace', "replace") END;
    END IF;
    FOR state IN SELECT s FROM jsonb_object_keys("replace") s ORDER BY s COLLATE "C" LOOP
        IF state NOT IN ('scheduled', 'available', 'executing', 'retryable', 'suspended') THEN
            RETURN 'replace has ' || CASE WHEN state IN ('completed', 'cancelled', 'discarded')
                       THEN 'the state ' || to_json(state) || ', in which a job has ended'
                       ELSE 'an unknown state ' || to_json(state) END
                   || ': allowed are scheduled, available, executing, retryable and suspended';
        END IF;
        IF @schema@._is_no_list_of("replace" -> state, CASE WHEN state = 'executing'
               THEN '["args", "meta", "tags", "max_attempts", "timeout_ms"]' ELSE fields END) THEN
            RETURN @schema@._job_fault_text('replace.' || state, "replace" -> state);
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION @schema@._conflict_fault IS 'The first fault of unique_by, on_conflict and replace; null: none.';

-- ---- jobs that expire ----

-- There is no SET clause, so that the function is inlined.
CREATE OR REPLACE FUNCTION @schema@._has_expired(state @schema@.job_state, attempt int, expires_at timestamptz) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT coalesce(expires_at <= pg_catalog.now(), false) AND attempt = 0
           AND state IN ('scheduled', 'available', 'retryable', 'suspended')
$$;
COMMENT ON FUNCTION @schema@._has_expired IS
    'Whether a job has not begun its first attempt by expires_at: it counts as ended.';

-- It waits for sessions that have these jobs locked. A job whose first attempt has begun is left as it is, whatever became
-- of that attempt.
CREATE OR REPLACE FUNCTION @schema@._expire_ids(ids bigint[]) RETURNS int
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
    INSERT INTO @schema@.finished_jobs
           (@job_columns@, errors, finished_at, state)
    SELECT @job_columns@,
           @schema@._add_error(g.errors, jsonb_build_object('attempt', 0, 'at', now(), 'kind', 'expired', 'error',
               'not started by ' || to_char(g.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))),
           clock_timestamp(), 'cancelled'
      FROM gone g;
    GET DIAGNOSTICS expired = ROW_COUNT;
    RETURN expired;
END
$$;
COMMENT ON FUNCTION @schema@._expire_ids IS
    'Cancels those of these jobs that have not begun by their expires_at; returns how many.';

-- ---- conflicts ----

-- expired: the holder is to be ended first. One statement reads both tables, so that a job that moves between them is seen
-- in one of them. The history is read only where finished states count, and only from the day on which the key was taken.
CREATE OR REPLACE FUNCTION @schema@._conflicting_state(job_id bigint, held_at timestamptz, unique_by jsonb,
    OUT state @schema@.job_state, OUT expired boolean)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    states CONSTANT jsonb := coalesce(unique_by -> 'states',
        '["scheduled", "available", "executing", "retryable", "suspended", "completed"]');
    since CONSTANT timestamptz := held_at - interval '1 day'; -- the clock may be behind after a failover
    period CONSTANT jsonb := coalesce(unique_by -> 'period', '"infinity"');
BEGIN
    expired := false;
    IF (CASE WHEN period = '"infinity"' THEN false
             ELSE held_at <= now() - period::int * interval '1 second' END) THEN
        RETURN;
    END IF;
    SELECT h.state, h.expired INTO state, expired
      FROM (SELECT j.state, @schema@._has_expired(j.state, j.attempt, j.expires_at) AS expired
              FROM @schema@.jobs j WHERE j.id = job_id
             UNION ALL
            SELECT f.state, false FROM @schema@._finished_completed f
             WHERE states ? 'completed' AND f.id = job_id AND f.finished_at >= since
             UNION ALL
            SELECT f.state, false FROM @schema@._finished_failed f
             WHERE states ?| '{cancelled,discarded}' AND f.id = job_id AND f.finished_at >= since) h;
    IF NOT coalesce(states ? state::text, false) THEN
        state := NULL;
        expired := false;
    END IF;
END
$$;
COMMENT ON FUNCTION @schema@._conflicting_state IS
    'The state of a key''s holder if it conflicts with a new job of this unique_by, else null; whether it has expired.';

-- A job that waits keeps at least one attempt. A job that becomes claimable, or moves to another line, gets a new position
-- in it.
CREATE OR REPLACE FUNCTION @schema@._replace_fields(job_id bigint, was @schema@.job_state, job @schema@.jobs, fields jsonb)
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
                    OR (fields ? 'priority' AND j.priority <> job.priority) THEN @schema@._next_position()
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
     WHERE j.id = _replace_fields.job_id AND j.state = was
    RETURNING j.queue INTO now_queue;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF to_state = 'available' AND (was <> to_state OR fields ?| '{queue,priority}') THEN
        PERFORM @schema@._wake(ARRAY[now_queue]);
    ELSIF to_state IN ('scheduled', 'retryable') AND moves AND job.scheduled_at < now() + interval '2 seconds' THEN
        PERFORM @schema@._notify('stage');
    END IF;
    RETURN true;
END
$$;
COMMENT ON FUNCTION @schema@._replace_fields IS
    'Gives a live job the new job''s values of these fields, if it is still in that state; returns whether it was.';

-- Null: the job has changed since the caller looked. subject: how an error begins.
CREATE OR REPLACE FUNCTION @schema@._conflict_answer(subject text, job_id bigint, its_state @schema@.job_state, job @schema@.jobs,
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
            RETURN CASE WHEN @schema@._replace_fields(job_id, its_state, job, fields) THEN 'replaced' END;
        END IF;
    END IF;
    RETURN 'ignored';
END
$$;
COMMENT ON FUNCTION @schema@._conflict_answer IS
    'What becomes of a new job that conflicts: ignored, replaced, or an error; null: look again.';

CREATE OR REPLACE FUNCTION @schema@._enqueue_unique(caller text, kind text, args jsonb, queue text, priority int,
    scheduled_at timestamptz, max_attempts int, key text, unique_key text, tags text[], meta jsonb, timeout_ms int,
    unique_by jsonb, on_conflict text, "replace" jsonb, expires_at timestamptz, OUT id bigint, OUT conflict text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    rule CONSTANT jsonb := nullif(unique_by, 'null');
    fields CONSTANT jsonb := nullif("replace", 'null');
    fault CONSTANT text := @schema@._conflict_fault(unique_key, rule, to_jsonb(on_conflict), fields);
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
      FROM @schema@._add_job(caller || ': the job', job, rule, on_conflict, fields) a;
END
$$;
COMMENT ON FUNCTION @schema@._enqueue_unique IS 'Adds the job of enqueue or try_enqueue after _job_fault has passed it.';

-- Ids and positions are taken in the order of the array. Jobs with unique_by come first, in the order of their keys' hashes,
-- then jobs with unique_key, in the order of those keys: so two callers with the same keys do not deadlock. Of two elements
-- with the same key the first is added, and the second conflicts with it, unless the first has expired by then.
CREATE OR REPLACE FUNCTION @schema@._enqueue_many_unique(caller text, jobs jsonb) RETURNS TABLE (id bigint, conflict text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    n CONSTANT int := jsonb_array_length(jobs);
    new_ids CONSTANT bigint[] :=
        ARRAY(SELECT nextval('@schema@.jobs_id_seq') FROM generate_series(1, n));
    ids bigint[] := array_fill(NULL::bigint, ARRAY[n]);
    conflicts text[] := array_fill(NULL::text, ARRAY[n]);
    positions bigint[] := ARRAY(SELECT @schema@._next_position() FROM generate_series(1, n));
    -- Whether each conflict must be handled by itself.
    singly boolean := jsonb_path_exists(jobs, '$[*] ? (@.unique_by != null || @.on_conflict != "ignore")');
    given record;
    done record;
    job @schema@.jobs;
BEGIN
    LOOP
        IF singly THEN
            FOR given IN
                SELECT j.*
                  FROM @schema@._json_jobs(_enqueue_many_unique.jobs) j
                 WHERE j.unique_by IS NOT NULL OR j.unique_key IS NOT NULL
                 ORDER BY CASE WHEN j.unique_by IS NOT NULL
                               THEN @schema@._unique_hash(j.kind, j.queue, j.args, j.meta, j.unique_by) END NULLS LAST,
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
                  FROM @schema@._add_job(caller || ': jobs[' || given.ord - 1 || ']', job, given.unique_by,
                                        given.on_conflict, given."replace") a;
                ids[given.ord] := done.id;
                conflicts[given.ord] := done.conflict;
            END LOOP;
        END IF;

        -- The rest, and all where a conflict needs nothing but an answer. A holder that ended between the two statements
        -- leaves a gap, and so does an expired one. Filling the gap now would be out of order, while we hold later keys: so
        -- we release those keys and begin again, one job at a time.
        BEGIN
            INSERT INTO @schema@.jobs (id, position, kind, args, queue, priority, scheduled_at, max_attempts, key,
                                       unique_key, tags, meta, timeout_ms, expires_at)
            SELECT new_ids[j.ord], positions[j.ord], j.kind, j.args, j.queue, j.priority, j.scheduled_at,
                   j.max_attempts, j.key, j.unique_key, j.tags, j.meta, j.timeout_ms, j.expires_at
              FROM @schema@._json_jobs(_enqueue_many_unique.jobs) j
             WHERE ids[j.ord] IS NULL
             ORDER BY j.unique_key, j.ord
            ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL DO NOTHING;

            ids := ARRAY(SELECT coalesce(ids[j.ord],
                                         CASE WHEN j.unique_key IS NULL THEN new_ids[j.ord]
                                              WHEN NOT @schema@._has_expired(live.state, live.attempt, live.expires_at)
                                              OR live.id IN (SELECT unnest(new_ids)) THEN live.id END)
                           FROM @schema@._json_jobs(_enqueue_many_unique.jobs) j
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
COMMENT ON FUNCTION @schema@._enqueue_many_unique IS 'Adds the jobs of enqueue_many if some of them are unique.';

-- ---- housekeeping ----

-- It reads no more of the history than lies between the first and the last of these jobs. Returns where to continue (null:
-- that was the end), and how many keys it deleted.
--
-- It looks up the jobs first and then locks the rows: a key that was taken over in between names another job. A job that is
-- not committed yet has no committed key either.
CREATE OR REPLACE FUNCTION @schema@._prune_uniques(INOUT after bigint DEFAULT 0, OUT pruned int)
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
    first_id := (SELECT u.job_id FROM @schema@._uniques u
                  WHERE u.job_id > coalesce(_prune_uniques.after, 0) ORDER BY u.job_id LIMIT 1);
    IF first_id IS NULL THEN
        after := NULL;
        RETURN;
    END IF;
    SELECT max(b.job_id) INTO last_id
      FROM (SELECT u.job_id FROM @schema@._uniques u
             WHERE u.job_id >= first_id AND u.job_id < first_id + span ORDER BY u.job_id LIMIT 1000) b;
    SELECT array_agg(u.key), array_agg(u.job_id) INTO dead, dead_ids
      FROM @schema@._uniques u
      LEFT JOIN (SELECT j.id FROM @schema@.jobs j WHERE j.id BETWEEN first_id AND last_id
                  UNION ALL
                 SELECT f.id FROM @schema@.finished_jobs f WHERE f.id BETWEEN first_id AND last_id) known
        ON known.id = u.job_id
     WHERE u.job_id BETWEEN first_id AND last_id AND known.id IS NULL;
    pruned := d.deleted FROM @schema@._delete_apart('_uniques', ARRAY(
           SELECT l.ctid FROM @schema@._uniques l
            WHERE l.key = ANY (dead) AND l.job_id = ANY (dead_ids)
              FOR UPDATE SKIP LOCKED)) d;
    after := last_id;
END
$$;
COMMENT ON FUNCTION @schema@._prune_uniques IS
    'Deletes keys whose job is neither live nor in the history; looks at up to 1000 of them, from the job `after` on.';
