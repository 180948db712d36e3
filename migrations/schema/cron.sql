-- Periodic jobs. A row of crons holds its next slot. The transaction that moves the row on has enqueued the job of that
-- slot, so each slot is enqueued once, however many nodes ask and how often. Everything goes by the database's clock.

-- Not called for the columns that _cron_fire writes.
CREATE OR REPLACE FUNCTION @schema@._crons_before_write() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    read CONSTANT record := @schema@._cron_parse(NEW.schedule);
    fields CONSTANT @schema@._cron_fields := read.fields;
    fault text := CASE
        WHEN NEW.name IS NULL OR octet_length(NEW.name) NOT BETWEEN 1 AND 128 OR NEW.name ~ '[[:cntrl:]]'
            THEN 'name must be text of 1 to 128 bytes without control characters, got ' || coalesce(to_json(NEW.name)::text, 'null')
        ELSE coalesce('schedule: ' || read.fault,
                      @schema@._job_fault(NEW.kind, NEW.args, NEW.queue, NEW.priority, NULL, coalesce(NEW.max_attempts, 20), NULL, NULL,
                                         NEW.tags, NEW.meta, NEW.timeout_ms, NULL),
                      CASE WHEN NEW.missed IS NULL OR NEW.missed NOT IN ('skip', 'once', 'all')
                           THEN 'missed must be skip, once or all, got ' || coalesce(to_json(NEW.missed)::text, 'null')
                           WHEN NEW.overlap IS NULL OR NEW.overlap NOT IN ('allow', 'skip', 'wait')
                           THEN 'overlap must be allow, skip or wait, got ' || coalesce(to_json(NEW.overlap)::text, 'null')
                           WHEN NEW.expires NOT BETWEEN interval '1 millisecond' AND interval '3650 days'
                           THEN 'expires must be null or an interval of 1 millisecond to 3650 days, got '
                                || to_json(NEW.expires::text)
                           WHEN NEW.paused IS NULL THEN 'paused must be true or false, got null' END,
                      @schema@._conflict_fault(NULL, NEW.unique_by, '"ignore"', NULL)) END;
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
        fault := @schema@._cron_zone_fault(NEW.timezone);
    END IF;
    IF fault IS NULL AND moved THEN
        -- @every counts from whole seconds, which are easier to read.
        slot := @schema@._cron_after(fields, CASE WHEN fields.every_ms IS NULL THEN since
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
    ELSIF moved AND (TG_OP = 'UPDATE' OR NEW.next_at IS NULL) THEN -- the slot of a restored dump stays
        NEW.next_at := slot;
    END IF;
    NEW.error := NULL;
    NEW.failed_at := NULL;
    NEW.updated_at := now();
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION @schema@._crons_before_write IS 'Checks a row of crons, and sets its next slot.';

-- The leader sleeps until the next slot that it knows.
CREATE OR REPLACE FUNCTION @schema@._crons_after_write() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
    PERFORM @schema@._notify('cron');
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION @schema@._crons_after_write IS 'Notifies the leader of a slot that is new or comes sooner.';

CREATE OR REPLACE TRIGGER crons_before_insert BEFORE INSERT ON @schema@.crons
    FOR EACH ROW EXECUTE FUNCTION @schema@._crons_before_write();
CREATE OR REPLACE TRIGGER crons_before_update BEFORE UPDATE OF name, schedule, timezone, kind, args, queue, paused, priority,
    max_attempts, timeout_ms, meta, tags, missed, overlap, expires, unique_by ON @schema@.crons
    FOR EACH ROW EXECUTE FUNCTION @schema@._crons_before_write();
CREATE OR REPLACE TRIGGER crons_after_insert AFTER INSERT ON @schema@.crons
    FOR EACH ROW EXECUTE FUNCTION @schema@._crons_after_write();
CREATE OR REPLACE TRIGGER crons_after_update AFTER UPDATE OF schedule, timezone, paused, next_at ON @schema@.crons
    FOR EACH ROW WHEN (NEW.next_at < OLD.next_at OR OLD.next_at IS NULL AND NEW.next_at IS NOT NULL)
    EXECUTE FUNCTION @schema@._crons_after_write();

-- An expired job does not block a new one.
CREATE OR REPLACE FUNCTION @schema@._cron_live(cron text) RETURNS TABLE (id bigint, state @schema@.job_state, attempt int)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT j.id, j.state, j.attempt
      FROM @schema@._cron_jobs c
      JOIN @schema@.jobs j ON j.id = ANY (ARRAY[c.job_id])
     WHERE c.cron = $1 AND NOT @schema@._has_expired(j.state, j.attempt, j.expires_at)
$$;
COMMENT ON FUNCTION @schema@._cron_live IS 'The live jobs of a cron, without expired ones.';

CREATE OR REPLACE FUNCTION @schema@._cron_enqueue(cron @schema@.crons, slot timestamptz, OUT id bigint, OUT added boolean, OUT why text)
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
        why := format('job %s blocks it (unique_by)', id);
        RETURN;
    END IF;
    INSERT INTO @schema@._cron_jobs (job_id, cron, waits) VALUES (id, cron.name, behind);
    IF behind THEN
        UPDATE @schema@.jobs j SET state = 'suspended', position = NULL WHERE j.id = _cron_enqueue.id;
        IF NOT FOUND THEN -- otherwise two of them would run
            RAISE EXCEPTION 'a trigger or rule on jobs keeps the job from being suspended'
                USING ERRCODE = 'triggered_action_exception';
        END IF;
    END IF;
    added := true;
END
$$;
COMMENT ON FUNCTION @schema@._cron_enqueue IS
    'Enqueues the job of a cron''s slot (null: none), unless overlap or unique_by allows none; why: what is in the way.';

-- A job waits no longer when its cron is gone or no longer says wait. promoted: how many jobs. waiting: whether some still
-- wait. more: whether more could have continued than one call handles.
CREATE OR REPLACE FUNCTION @schema@._cron_promote(OUT promoted int, OUT waiting boolean, OUT more boolean)
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
          FROM @schema@._cron_jobs c
         WHERE c.waits AND (c.again_at IS NULL OR c.again_at <= clock_timestamp())
           AND (NOT EXISTS (SELECT FROM @schema@.crons k WHERE k.name = c.cron AND k.overlap = 'wait')
                OR NOT EXISTS (SELECT FROM @schema@._cron_live(c.cron) l WHERE l.id <> c.job_id))
         ORDER BY c.job_id
         LIMIT most
           FOR UPDATE OF c SKIP LOCKED
    LOOP
        looked := looked + 1;
        BEGIN
            UPDATE @schema@.jobs j SET state = 'available', position = @schema@._next_position()
             WHERE j.id = ready.job_id AND j.state = 'suspended'
            RETURNING j.queue INTO queue;
            IF FOUND THEN
                PERFORM @schema@._wake(ARRAY[queue]);
                promoted := promoted + 1;
            ELSIF EXISTS (SELECT FROM @schema@.jobs j WHERE j.id = ready.job_id AND j.state = 'suspended') THEN
                RAISE EXCEPTION 'a trigger or rule on jobs keeps the job from being changed'
                    USING ERRCODE = 'triggered_action_exception';
            END IF;
            UPDATE @schema@._cron_jobs c SET waits = false, again_at = NULL WHERE c.job_id = ready.job_id;
            SET CONSTRAINTS ALL IMMEDIATE;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, fault = MESSAGE_TEXT;
            IF @schema@._is_passing(state) THEN
                RAISE;
            END IF;
            IF state = '55P03' THEN
                PERFORM set_config('lock_timeout', '1ms', true); -- do not wait for the next lock
            ELSE
                RAISE WARNING 'cron %: nothing blocks job % any longer, but the database refuses to make it available: %',
                    ready.cron, ready.job_id, left(fault, 1000) USING ERRCODE = '01JQ1';
            END IF;
            UPDATE @schema@._cron_jobs c
               SET again_at = clock_timestamp() + CASE WHEN state = '55P03' THEN interval '1 second' ELSE interval '1 minute' END
             WHERE c.job_id = ready.job_id;
        END;
    END LOOP;
    more := looked = most;
    waiting := EXISTS (SELECT FROM @schema@._cron_jobs c WHERE c.waits);
END
$$;
COMMENT ON FUNCTION @schema@._cron_promote IS 'Makes jobs available that waited for other jobs of their cron to end.';

CREATE OR REPLACE FUNCTION @schema@._cron_fire_one(cron @schema@.crons, upto timestamptz, most int) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    read CONSTANT record := @schema@._cron_parse(cron.schedule);
    fields CONSTANT @schema@._cron_fields := read.fields;
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
        slot := @schema@._cron_newest(fields, slot, upto, cron.timezone);
    END IF;
    WHILE slot <= upto AND fired < most LOOP
        IF cron.missed <> 'skip' OR upto - slot <= interval '1 minute' THEN
            done := @schema@._cron_enqueue(cron, slot);
            IF done.added THEN
                last := slot;
                job := done.id;
                fired := fired + 1;
            ELSE -- no later slot brings a job now either
                slot := @schema@._cron_newest(fields, slot, upto, cron.timezone);
                skipped := slot;
            END IF;
        END IF;
        slot := @schema@._cron_after(fields, slot, cron.timezone);
    END LOOP;
    UPDATE @schema@.crons c SET next_at = slot, last_at = last, last_job_id = job, skipped_at = skipped,
           error = NULL, failed_at = NULL
     WHERE c.name = cron.name;
    IF NOT FOUND THEN -- otherwise this slot would be enqueued again and again
        RAISE EXCEPTION 'a trigger or rule on crons keeps its row from being changed' USING ERRCODE = 'triggered_action_exception';
    END IF;
    RETURN fired;
END
$$;
COMMENT ON FUNCTION @schema@._cron_fire_one IS
    'Enqueues at most `most` jobs of one cron''s slots that have come, and moves the cron on; returns how many.';

-- Call it when the next slot has come; any number of callers may. A row is locked while its slots are enqueued and it is
-- moved on; a caller that finds it locked leaves it. A cron whose job waits for a lock (a trigger of the application wants a
-- row of its own) is left as well, and tried again after a second. fired: how many jobs, including those that waited for
-- another job to end and now continue. next_ms: when to call again; 0: at once, because there are more; null: nothing is
-- due, ever.
CREATE OR REPLACE FUNCTION @schema@._cron_fire(OUT fired int, OUT next_ms bigint)
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
    -- With the 20 of _cron_promote these are fewer than 64 rows: more than 64 subtransactions in one transaction slow down
    -- the snapshots of all sessions.
    FOR cron IN
        SELECT c.* FROM @schema@.crons c
         WHERE c.next_at <= upto AND (c.failed_at IS NULL OR c.failed_at <= upto - interval '1 minute')
         ORDER BY c.next_at
         LIMIT 40
           FOR UPDATE SKIP LOCKED
    LOOP
        EXIT WHEN fired >= 1000;
        BEGIN
            fired := fired + @schema@._cron_fire_one(cron, upto, 1000 - fired);
            SET CONSTRAINTS ALL IMMEDIATE; -- an error of the commit comes here
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, fault = MESSAGE_TEXT;
            -- Only an error of the whole transaction ends the call.
            IF @schema@._is_passing(state) THEN
                RAISE;
            END IF;
            IF state = '55P03' THEN
                PERFORM set_config('lock_timeout', '1ms', true); -- do not wait for the next lock
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
                RAISE WARNING 'cron %: cannot enqueue its job, and the database refuses to record the reason: %', cron.name, fault
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
    ELSIF waits.waiting OR EXISTS (SELECT FROM @schema@._cron_jobs c WHERE c.waits) THEN
        next_ms := least(next_ms, 200); -- no event tells when the awaited job has ended
    END IF;
END
$$;
COMMENT ON FUNCTION @schema@._cron_fire IS 'Enqueues the jobs of all slots that have come.';

-- fired: how many jobs. fresh: the node's process has just started; it has not lost a lease and come back. Of several nodes
-- that come up at the same time, the first one to get the lock here counts as the first: its mark is there when the others
-- get the lock. remaining: how many crons another session has locked; call the function again for these.
CREATE OR REPLACE FUNCTION @schema@._cron_boot(node bigint, fresh boolean, OUT fired int, OUT remaining int)
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
        IF fired >= 60 THEN -- more subtransactions slow down the snapshots of all sessions
            left_over := left_over || cron.name;
            CONTINUE;
        END IF;
        BEGIN
            SELECT c.* INTO cron FROM @schema@.crons c WHERE c.name = cron.name FOR UPDATE NOWAIT;
            CONTINUE WHEN NOT FOUND;
            done := @schema@._cron_enqueue(cron, date_trunc('milliseconds', clock_timestamp()));
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
                PERFORM set_config('lock_timeout', '1ms', true); -- do not wait for the next lock
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
COMMENT ON FUNCTION @schema@._cron_boot IS
    'Enqueues the jobs of the crons that run at reboot, if this node is the first of the cluster to come up.';

-- A cron whose row is locked is left for the next call. A cron that the database refuses to change is left, too: it is found
-- by halving, named in fault, and stops no other. removed: the deleted crons. changed: how many rows were written. refused:
-- the crons that are named in fault.
CREATE OR REPLACE FUNCTION @schema@._cron_let_go(names text[], nodes text[], OUT removed text[], OUT changed int, OUT refused text[],
    OUT fault text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' AS $$
#variable_conflict use_variable
DECLARE
    free CONSTANT text[] := ARRAY(SELECT c.name FROM @schema@.crons c WHERE c.name = ANY (names) ORDER BY c.name
                                     FOR UPDATE SKIP LOCKED);
    lows int[] := '{1}';
    highs int[] := ARRAY[cardinality(free)];
    low int;
    high int;
    used int := 0;
    fewer int;
    gone text[];
BEGIN
    removed := '{}';
    changed := 0;
    refused := '{}';
    -- At most 60 subtransactions that succeed: more slow down the snapshots of all sessions.
    WHILE cardinality(lows) > 0 AND cardinality(free) > 0 AND used < 60 LOOP
        low := lows[cardinality(lows)];
        high := highs[cardinality(highs)];
        lows := lows[1 : cardinality(lows) - 1];
        highs := highs[1 : cardinality(highs) - 1];
        BEGIN
            UPDATE @schema@.crons c SET declared_by = c.declared_by - nodes
             WHERE c.name = ANY (free[low : high]) AND c.declared_by - nodes <> '{}';
            GET DIAGNOSTICS fewer = ROW_COUNT;
            WITH gone AS (
                DELETE FROM @schema@.crons c WHERE c.name = ANY (free[low : high]) AND c.declared_by - nodes = '{}'
                RETURNING c.name)
            SELECT coalesce(array_agg(g.name ORDER BY g.name), '{}') INTO gone FROM gone g;
            SET CONSTRAINTS ALL IMMEDIATE;
            IF EXISTS (SELECT FROM @schema@.crons c WHERE c.name = ANY (free[low : high]) AND c.declared_by ?| nodes) THEN
                RAISE EXCEPTION 'a trigger or rule on crons keeps its row from being changed'
                    USING ERRCODE = 'triggered_action_exception';
            END IF;
            removed := removed || gone;
            changed := changed + fewer + cardinality(gone);
            used := used + 1;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            IF @schema@._is_passing(SQLSTATE) THEN
                RAISE;
            END IF;
            IF SQLSTATE = '55P03' THEN
                PERFORM set_config('lock_timeout', '1ms', true);
            END IF;
            IF low < high THEN
                lows := lows || ARRAY[low + (high - low) / 2 + 1, low];
                highs := highs || ARRAY[high, low + (high - low) / 2];
            ELSIF SQLSTATE <> '55P03' THEN
                refused := refused || free[low];
                fault := concat_ws('; ', fault, format('cron %s, which is no longer in any configuration: %s', free[low],
                                                       left(SQLERRM, 1000)));
            END IF;
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION @schema@._cron_let_go IS
    'Takes nodes out of declared_by of crons, and deletes the crons that no other node declares.';

-- sections: an object of the sections by name, each with schedule, kind, args, queue, timezone, priority, max_attempts,
-- missed, timeout_ms, meta, overlap, expires_ms and unique_by. A section counts when it is new or differs from what this
-- node declared last. Until then the row keeps what SQL or another node's newer section made of it. changed: how many rows
-- were written or deleted. busy: how many rows another session has locked; call the function again for these. fault: what
-- the database refused.
CREATE OR REPLACE FUNCTION @schema@._cron_declare(node text, sections jsonb, OUT changed int, OUT busy int, OUT fault text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
#variable_conflict use_variable
DECLARE
    section record;
    gone record;
    n int;
BEGIN
    changed := 0;
    busy := 0;
    -- First: if _cron_sweep is about to drop what this node declared, we wait until it has, and declare it anew.
    DELETE FROM @schema@._cron_away a WHERE a.node = _cron_declare.node;
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
                PERFORM set_config('lock_timeout', '1ms', true);    -- do not wait for the next lock
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
COMMENT ON FUNCTION @schema@._cron_declare IS 'Makes crons of the sections in a node''s configuration.';

-- Only a day that is watched counts: the leader calls this each minute, and if no leader has called it for five minutes (no
-- node was up, or the clock was set) the day begins anew. The day ends when the node is back. removed: how many crons it
-- deleted. names: these crons. A cron that the database refuses to delete is named in a warning.
CREATE OR REPLACE FUNCTION @schema@._cron_sweep(OUT removed int, OUT names text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
#variable_conflict use_variable
DECLARE
    now CONSTANT timestamptz := clock_timestamp();
    gone text[];
    theirs record;
BEGIN
    DELETE FROM @schema@._cron_jobs c
     USING (SELECT j.job_id, row_number() OVER (PARTITION BY j.cron ORDER BY j.job_id DESC) AS nth FROM @schema@._cron_jobs j) n
     WHERE n.job_id = c.job_id AND NOT c.waits
       AND (n.nth > 100 OR NOT EXISTS (SELECT FROM @schema@.crons k WHERE k.name = c.cron))
       AND NOT EXISTS (SELECT FROM @schema@.jobs j WHERE j.id = ANY (ARRAY[c.job_id]));
    DELETE FROM @schema@._cron_away a
     WHERE EXISTS (SELECT FROM @schema@.nodes n WHERE n.name = a.node AND n.expires_at > now)
        OR NOT EXISTS (SELECT FROM @schema@.crons c WHERE c.declared_by ? a.node);
    INSERT INTO @schema@._cron_away AS a (node, since, seen)
    SELECT d.node, now, now
      FROM (SELECT DISTINCT jsonb_object_keys(CASE WHEN jsonb_typeof(c.declared_by) = 'object' THEN c.declared_by ELSE '{}' END) AS node
            FROM @schema@.crons c) d
     WHERE NOT EXISTS (SELECT FROM @schema@.nodes n WHERE n.name = d.node AND n.expires_at > now)
     ORDER BY d.node
    ON CONFLICT (node) DO UPDATE
       SET since = CASE WHEN a.seen BETWEEN now - interval '5 minutes' AND now THEN a.since ELSE now END, seen = now;
    -- We hold these rows until the transaction ends, so none of these nodes declares anything in the meantime.
    gone := ARRAY(SELECT a.node FROM @schema@._cron_away a WHERE a.since <= now - interval '1 day' AND a.seen = now);
    theirs := @schema@._cron_let_go(ARRAY(SELECT c.name FROM @schema@.crons c WHERE c.declared_by ?| gone), gone);
    IF theirs.fault IS NOT NULL THEN
        RAISE WARNING '%', theirs.fault USING ERRCODE = '01JQ1';
    END IF;
    removed := cardinality(theirs.removed);
    names := nullif(array_to_string(theirs.removed, ', '), '');
END
$$;
COMMENT ON FUNCTION @schema@._cron_sweep IS
    'Drops what nodes declared that have had no lease for a day, and deletes crons that no other node declares.';

CREATE OR REPLACE FUNCTION @schema@.cron_set(name text, schedule text, kind text, args jsonb DEFAULT '{}', timezone text DEFAULT 'UTC',
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
COMMENT ON FUNCTION @schema@.cron_set IS
'Adds a cron, or changes the one of that name; a paused cron stays paused. The change takes effect within a second.
name is 1 to 128 bytes. schedule and timezone are as for cron_next(). kind, args, queue, priority, max_attempts, meta, tags,
timeout_ms (in ms) and unique_by are those of its jobs, as for enqueue().
missed is for slots that came while no node ran: once (enqueue the newest), all, or skip (none over a minute late).
overlap says what to do while a job of the cron is live: allow (enqueue), skip, or wait (one job waits for it to end).
expires is an interval of 1 ms to 3650 days: a job that has not begun by then is cancelled; null: never.
SQLSTATE: 22023 an argument is wrong, and the message names it.';

CREATE OR REPLACE FUNCTION @schema@._cron_find(caller text, name text) RETURNS @schema@.crons
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    cron @schema@.crons;
BEGIN
    SELECT * INTO cron FROM @schema@.crons c WHERE c.name = _cron_find.name FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'jobq.%: no cron has the name %', caller, coalesce(to_json(_cron_find.name)::text, 'null')
            USING ERRCODE = 'no_data_found';
    END IF;
    RETURN cron;
END
$$;
COMMENT ON FUNCTION @schema@._cron_find IS 'The cron of that name, locked; an error when there is none.';

CREATE OR REPLACE FUNCTION @schema@.cron_pause(name text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    cron CONSTANT @schema@.crons := @schema@._cron_find('cron_pause', cron_pause.name);
BEGIN
    UPDATE @schema@.crons c SET paused = true WHERE c.name = cron.name AND NOT c.paused;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION @schema@.cron_pause IS
'Pauses a cron: its slots enqueue no jobs until cron_resume().
name is the cron''s name. Returns true if it was not paused before. SQLSTATE: P0002 no cron has this name.';

CREATE OR REPLACE FUNCTION @schema@.cron_resume(name text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    cron CONSTANT @schema@.crons := @schema@._cron_find('cron_resume', cron_resume.name);
BEGIN
    UPDATE @schema@.crons c SET paused = false WHERE c.name = cron.name AND c.paused;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION @schema@.cron_resume IS
'Resumes a paused cron with the next slot from now. Slots that came while it was paused do not count as missed.
name is the cron''s name. Returns true if it was paused. SQLSTATE: P0002 no cron has this name.';

CREATE OR REPLACE FUNCTION @schema@.cron_delete(name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    cron CONSTANT @schema@.crons := @schema@._cron_find('cron_delete', cron_delete.name);
BEGIN
    DELETE FROM @schema@.crons c WHERE c.name = cron.name;
END
$$;
COMMENT ON FUNCTION @schema@.cron_delete IS
'Deletes a cron; its jobs stay. A cron that the configuration of a node has comes back when that node starts or reloads.
name is the cron''s name. SQLSTATE: P0002 no cron has this name.';

CREATE OR REPLACE FUNCTION @schema@.cron_run(name text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    cron CONSTANT @schema@.crons := @schema@._cron_find('cron_run', cron_run.name);
    done CONSTANT record := @schema@._cron_enqueue(cron, NULL);
BEGIN
    IF NOT done.added THEN
        RAISE EXCEPTION 'jobq.cron_run: cron % cannot enqueue a job now: %', to_json(cron.name), done.why
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN done.id;
END
$$;
COMMENT ON FUNCTION @schema@.cron_run IS
'Enqueues the job of a cron now, beside its schedule and even if it is paused, and returns the job''s id.
name is the cron''s name. SQLSTATEs: P0002 no cron has this name; 55000 overlap or unique_by allows no job now, and the
message names the job in the way.';
