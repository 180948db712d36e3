-- Undoes migration 12. Jobs that wait for another one of their cron are available at once.

UPDATE @schema@.jobs j SET state = 'available', position = @schema@.next_position()
  FROM @schema@.cron_jobs c WHERE c.job_id = j.id AND c.waits AND j.state = 'suspended';

DROP FUNCTION @schema@.cron_set(text, text, text, jsonb, text, text, int, int, text, jsonb, text[], int, text, interval, jsonb);
DROP FUNCTION @schema@.cron_enqueue(@schema@.crons, timestamptz);
CREATE FUNCTION @schema@.cron_set(name text, schedule text, kind text, args jsonb DEFAULT '{}', timezone text DEFAULT 'UTC',
    queue text DEFAULT 'default', priority int DEFAULT 0, max_attempts int DEFAULT 20, missed text DEFAULT 'once',
    meta jsonb DEFAULT '{}', tags text[] DEFAULT '{}', timeout_ms int DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO @schema@.crons (name, schedule, kind, args, timezone, queue, priority, max_attempts, missed, meta, tags,
                                timeout_ms)
    VALUES (cron_set.name, cron_set.schedule, cron_set.kind, cron_set.args, cron_set.timezone, cron_set.queue,
            cron_set.priority, cron_set.max_attempts, cron_set.missed, cron_set.meta, cron_set.tags, cron_set.timeout_ms)
    ON CONFLICT (name) DO UPDATE
       SET schedule = excluded.schedule, kind = excluded.kind, args = excluded.args, timezone = excluded.timezone,
           queue = excluded.queue, priority = excluded.priority, max_attempts = excluded.max_attempts,
           missed = excluded.missed, meta = excluded.meta, tags = excluded.tags, timeout_ms = excluded.timeout_ms;
END
$$;

CREATE FUNCTION @schema@.cron_enqueue(cron @schema@.crons, slot timestamptz) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
#variable_conflict use_variable
BEGIN
    RETURN @schema@.enqueue(cron.kind, cron.args, queue => cron.queue, priority => cron.priority,
        max_attempts => cron.max_attempts, tags => cron.tags, timeout_ms => cron.timeout_ms,
        meta => cron.meta || jsonb_build_object('cron', cron.name)
                || CASE WHEN slot IS NULL THEN '{}' ELSE jsonb_build_object('cron_at', replace(to_char(slot,
                        'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), '.000Z', 'Z')) END);
END
$$;

CREATE OR REPLACE FUNCTION @schema@.cron_run(name text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    cron CONSTANT @schema@.crons := @schema@.cron_find('cron_run', cron_run.name);
BEGIN
    RETURN @schema@.cron_enqueue(cron, NULL);
END
$$;

CREATE OR REPLACE FUNCTION @schema@.cron_sweep(OUT removed int, OUT names text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
#variable_conflict use_variable
DECLARE
    now CONSTANT timestamptz := clock_timestamp();
    gone text[];
    theirs record;
BEGIN
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
                                             timeout_ms, meta, declared)
            VALUES (section.name, section.d ->> 'schedule', section.d ->> 'timezone', section.d ->> 'kind',
                    section.d -> 'args', section.d ->> 'queue', (section.d ->> 'priority')::int,
                    (section.d ->> 'max_attempts')::int, section.d ->> 'missed', (section.d ->> 'timeout_ms')::int,
                    section.d -> 'meta', section.d)
            ON CONFLICT (name) DO UPDATE
               SET schedule = excluded.schedule, timezone = excluded.timezone, kind = excluded.kind, args = excluded.args,
                   queue = excluded.queue, priority = excluded.priority, max_attempts = excluded.max_attempts,
                   missed = excluded.missed, timeout_ms = excluded.timeout_ms, meta = excluded.meta,
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

CREATE OR REPLACE FUNCTION @schema@.cron_boot(node bigint, fresh boolean, OUT fired int, OUT remaining int)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
#variable_conflict use_variable
DECLARE
    cron @schema@.crons;
    todo text[];
    left_over text[] := '{}';
    job bigint;
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
            job := @schema@.cron_enqueue(cron, date_trunc('milliseconds', clock_timestamp()));
            UPDATE @schema@.crons c SET last_at = clock_timestamp(), last_job_id = job WHERE c.name = cron.name;
            SET CONSTRAINTS ALL IMMEDIATE;
            fired := fired + 1;
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

CREATE OR REPLACE FUNCTION @schema@.cron_fire(OUT fired int, OUT next_ms bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET lock_timeout = '100ms' AS $$
#variable_conflict use_variable
DECLARE
    upto CONSTANT timestamptz := clock_timestamp();
    cron @schema@.crons;
    next_at timestamptz;
    fault text;
    state text;
BEGIN
    fired := 0;
    -- Fewer than 64 rows: more subtransactions than that in one transaction slow down everybody's snapshots.
    FOR cron IN
        SELECT c.* FROM @schema@.crons c
         WHERE c.next_at <= upto AND (c.failed_at IS NULL OR c.failed_at <= upto - interval '1 minute')
         ORDER BY c.next_at
         LIMIT 60
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
END
$$;

CREATE OR REPLACE FUNCTION @schema@.cron_fire_one(cron @schema@.crons, upto timestamptz, most int) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    read CONSTANT record := @schema@.cron_parse(cron.schedule);
    fields CONSTANT @schema@.cron_fields := read.fields;
    slot timestamptz := cron.next_at;
    last timestamptz := cron.last_at;
    job bigint := cron.last_job_id;
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
            last := slot;
            job := @schema@.cron_enqueue(cron, slot);
            fired := fired + 1;
        END IF;
        slot := @schema@.cron_after(fields, slot, cron.timezone);
    END LOOP;
    UPDATE @schema@.crons c SET next_at = slot, last_at = last, last_job_id = job, error = NULL, failed_at = NULL
     WHERE c.name = cron.name;
    IF NOT FOUND THEN -- else this slot would be enqueued again and again
        RAISE EXCEPTION 'a trigger or rule on crons keeps its row from being changed' USING ERRCODE = 'triggered_action_exception';
    END IF;
    RETURN fired;
END
$$;

DROP TRIGGER crons_before_update ON @schema@.crons;
CREATE TRIGGER crons_before_update BEFORE UPDATE OF name, schedule, timezone, kind, args, queue, paused, priority,
    max_attempts, timeout_ms, meta, tags, missed ON @schema@.crons
    FOR EACH ROW EXECUTE FUNCTION @schema@.crons_before_write();
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
                      @schema@.job_fault(NEW.kind, NEW.args, NEW.queue, NEW.priority, NULL, NEW.max_attempts, NULL, NULL,
                                         NEW.tags, NEW.meta, NEW.timeout_ms, NULL),
                      CASE WHEN NEW.missed IS NULL OR NEW.missed NOT IN ('skip', 'once', 'all')
                           THEN 'missed must be skip, once or all, got ' || coalesce(to_json(NEW.missed)::text, 'null')
                           WHEN NEW.paused IS NULL THEN 'paused must be true or false, got null' END) END;
    moved boolean := TG_OP = 'INSERT';
    since timestamptz := clock_timestamp();
    slot timestamptz;
BEGIN
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

DROP FUNCTION @schema@._cron_promote();
DROP FUNCTION @schema@._cron_live(text);
DROP TABLE @schema@.cron_jobs;
UPDATE @schema@.crons c SET max_attempts = 20 WHERE c.max_attempts IS NULL;
ALTER TABLE @schema@.crons
    ALTER COLUMN max_attempts SET DEFAULT 20,
    ALTER COLUMN max_attempts SET NOT NULL,
    DROP COLUMN overlap,
    DROP COLUMN expires,
    DROP COLUMN unique_by,
    DROP COLUMN skipped_at;

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
            IF at IS NOT NULL THEN
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

CREATE OR REPLACE FUNCTION @schema@.json_jobs(jobs jsonb) RETURNS TABLE (ord bigint, kind text, args jsonb, queue text,
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

CREATE OR REPLACE FUNCTION @schema@.try_enqueue(kind text, args jsonb DEFAULT '{}', queue text DEFAULT 'default',
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

CREATE OR REPLACE FUNCTION @schema@.enqueue(kind text, args jsonb DEFAULT '{}', queue text DEFAULT 'default',
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

DROP FUNCTION @schema@._in_zone(timestamptz, text);
DROP FUNCTION @schema@._ago(timestamptz);
DROP FUNCTION @schema@._utc(timestamptz);
DROP FUNCTION @schema@._zone_fault(jsonb, text);
DROP FUNCTION @schema@._names_zone(text);

DROP TRIGGER jobs_before_insert ON @schema@.jobs;
CREATE TRIGGER jobs_before_insert BEFORE INSERT ON @schema@.jobs FOR EACH ROW
    WHEN (NEW.scheduled_at > now() OR NEW.state <> 'available' OR NEW.position IS NULL OR octet_length(NEW.unique_key) > 512)
    EXECUTE FUNCTION @schema@.jobs_before_insert();
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
ALTER TABLE @schema@.jobs ALTER COLUMN max_attempts SET DEFAULT 20;
DROP FUNCTION @schema@._default_attempts();

DROP FUNCTION @schema@.queue_declare(text, jsonb);
DROP FUNCTION @schema@._queue_said(jsonb, text, int, boolean);
DROP FUNCTION @schema@._queue_attempts(text);
ALTER TABLE @schema@.queues DROP COLUMN max_attempts, DROP COLUMN declared;
