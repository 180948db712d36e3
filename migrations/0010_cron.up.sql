-- jobq, migration 10: periodic jobs. A row of crons holds its next slot; whoever moves it on has enqueued the slot's job in
-- the same transaction, so each slot is enqueued once, whoever asks and how often. All of it goes by this database's clock.

ALTER TABLE @schema@.crons
    ADD COLUMN priority     int NOT NULL DEFAULT 0,
    ADD COLUMN max_attempts int NOT NULL DEFAULT 20,
    ADD COLUMN timeout_ms   int,
    ADD COLUMN meta         jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN tags         text[] NOT NULL DEFAULT '{}',
    ADD COLUMN missed       text NOT NULL DEFAULT 'once',
    ADD COLUMN next_at      timestamptz,        -- the next slot; null: paused, @reboot, or it could not be found
    ADD COLUMN last_at      timestamptz,        -- the slot that was enqueued last
    ADD COLUMN last_job_id  bigint,
    ADD COLUMN error        text,               -- why it could not be enqueued; tried again every minute
    ADD COLUMN failed_at    timestamptz,
    ADD COLUMN declared     jsonb,              -- the section of a configuration that it was made from
    ADD COLUMN declared_by  jsonb NOT NULL DEFAULT '{}';    -- the nodes that have a section of that name: what each said
                                                            -- last, as a hash

CREATE INDEX crons_due ON @schema@.crons (next_at) WHERE next_at IS NOT NULL;

-- Nodes of crons.declared_by that are not there, as cron_sweep has watched them: since when, and when it last looked.
CREATE TABLE @schema@.cron_away (
    node  text PRIMARY KEY,
    since timestamptz NOT NULL,
    seen  timestamptz NOT NULL
);

-- Whether the node has had its say on @reboot. Nodes that live already have: they are what a new one finds.
ALTER TABLE @schema@.nodes ADD COLUMN booted boolean NOT NULL DEFAULT true;
ALTER TABLE @schema@.nodes ALTER COLUMN booted SET DEFAULT false;
-- The @reboot jobs that this node, as the first one, has yet to enqueue: names of crons that were locked.
ALTER TABLE @schema@.nodes ADD COLUMN boots_left text[] NOT NULL DEFAULT '{}';

-- A schedule that was read. Bit n of a mask stands for the value n. @every has every_ms alone, @reboot
-- has reboot.
CREATE TYPE @schema@.cron_fields AS (
    minutes       bigint,
    hours         bigint,
    days          bigint,       -- 1 to 31; bit 0: L
    months        bigint,
    weekdays      bigint,       -- 0 to 6, 0 is Sunday; bits 8 to 14: the last one of the month
    either        boolean,      -- both days and weekdays are restricted: one of them is enough
    every_ms      bigint,
    reboot        boolean
);

-- What one field of a schedule allows; fault: what is wrong with it. jobqd/pure/cron.c reads the same language and says
-- the same; tests compare the two. COLLATE "C": in a Turkish database lower('FRI') has no i.
CREATE FUNCTION @schema@.cron_field(field text, value text, OUT mask bigint, OUT fault text)
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    lowest CONSTANT int := CASE WHEN field IN ('day of month', 'month') THEN 1 ELSE 0 END;
    highest CONSTANT int := CASE field WHEN 'minute' THEN 59 WHEN 'hour' THEN 23 WHEN 'day of month' THEN 31
                                    WHEN 'month' THEN 12 ELSE 7 END;
    steps CONSTANT int := CASE field WHEN 'minute' THEN 60 WHEN 'hour' THEN 24 ELSE highest END;
    names CONSTANT text[] := CASE field
        WHEN 'month' THEN '[0:12]={-,jan,feb,mar,apr,may,jun,jul,aug,sep,oct,nov,dec}'::text[]
        WHEN 'day of week' THEN '[0:6]={sun,mon,tue,wed,thu,fri,sat}'::text[] ELSE '{}' END;
    allowed CONSTANT text := CASE field
        WHEN 'minute' THEN '0 to 59'
        WHEN 'hour' THEN '0 to 23'
        WHEN 'day of month' THEN '1 to 31, L (the last day)'
        WHEN 'month' THEN '1 to 12, jan to dec'
        ELSE '0 to 7 (0 and 7 are Sunday), sun to sat, 5L or friL (the last Friday)' END
        || ', *, ranges a-b, steps */n and a-b/n, lists a,b';
    item text;
    part text[];
    low int;
    high int;
    step int;
BEGIN
    mask := 0;
    FOREACH item IN ARRAY string_to_array(value, ',') LOOP
        fault := field || ' ' || to_json(item) || ' is not allowed: ';
        part := regexp_match(lower(item COLLATE "C"),
                             '^(?:([*])|([0-9]{1,4}|[a-z]{3})(?:-([0-9]{1,4}|[a-z]{3}))?)(?:/([0-9]{1,4}))?$');
        IF field = 'day of month' AND item IN ('L', 'l') THEN
            mask := mask | 1;
            CONTINUE;
        ELSIF field = 'day of week' AND lower(item COLLATE "C") ~ '^([0-7]|[a-z]{3})l$' THEN
            part := ARRAY[NULL, left(lower(item COLLATE "C"), -1), NULL, NULL];
        ELSIF part IS NULL THEN
            fault := fault || allowed;
            RETURN;
        END IF;
        low := CASE WHEN part[1] IS NOT NULL THEN lowest
                    WHEN part[2] ~ '^[0-9]' THEN part[2]::int ELSE array_position(names, part[2]) END;
        high := CASE WHEN part[1] IS NOT NULL THEN CASE highest WHEN 7 THEN 6 ELSE highest END
                     WHEN part[3] IS NULL THEN low
                     WHEN part[3] ~ '^[0-9]' THEN part[3]::int ELSE array_position(names, part[3]) END;
        IF part[3] = 'sun' AND low > 0 THEN
            high := 7;  -- at the end of a range it ends the week
        END IF;
        step := coalesce(part[4]::int, 1);
        IF low IS NULL OR high IS NULL OR low NOT BETWEEN lowest AND highest OR high NOT BETWEEN lowest AND highest THEN
            fault := fault || allowed;
            RETURN;
        ELSIF high < low THEN
            fault := fault || 'a range begins with its lower end';
            RETURN;
        ELSIF part[4] IS NOT NULL AND part[1] IS NULL AND part[3] IS NULL THEN
            fault := fault || 'a step stands behind * or a range, as in ' || low || '-' || highest || '/' || part[4];
            RETURN;
        ELSIF step NOT BETWEEN 1 AND steps THEN
            fault := fault || 'a step is 1 to ' || steps;
            RETURN;
        END IF;
        FOR n IN low..high BY step LOOP
            mask := mask | (1::bigint << CASE WHEN field <> 'day of week' THEN n
                                              WHEN item ~ '[lL]$' THEN n % 7 + 8 ELSE n % 7 END);
        END LOOP;
    END LOOP;
    fault := NULL;
END
$$;

-- Reads a schedule; fault: what is wrong with it, NULL when nothing is.
CREATE FUNCTION @schema@.cron_parse(schedule text, OUT fields @schema@.cron_fields, OUT fault text)
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    allowed CONSTANT text := 'five fields (minute, hour, day of month, month, day of week), @yearly, @annually, @monthly, '
        '@weekly, @daily, @midnight, @hourly, @reboot or @every TIME, such as @every 90s';
    trimmed text := btrim(schedule, E' \t');
    words text[] := regexp_split_to_array(trimmed, E'[ \t]+');
    nickname CONSTANT text := lower(words[1] COLLATE "C");
    ms numeric;
    read record;
BEGIN
    IF schedule IS NULL OR trimmed = '' OR octet_length(schedule) > 256 THEN
        fault := 'must be ' || allowed || ', got ' || CASE WHEN schedule IS NULL THEN 'null'
            WHEN trimmed = '' THEN 'nothing' ELSE octet_length(schedule) || ' bytes' END;
        RETURN;
    END IF;
    IF nickname = '@reboot' AND cardinality(words) = 1 THEN
        fields.reboot := true;
        RETURN;
    ELSIF nickname = '@every' AND cardinality(words) = 2 THEN
        IF words[2] ~ '^(?:[0-9]{1,15}(?:ms|s|m|h|d))+$' THEN
            SELECT sum(m[1]::numeric * CASE m[2] WHEN 'ms' THEN 1 WHEN 's' THEN 1000 WHEN 'm' THEN 60000
                                                 WHEN 'h' THEN 3600000 ELSE 86400000 END)
              INTO ms FROM regexp_matches(words[2], '([0-9]+)(ms|s|m|h|d)', 'g') m;
        END IF;
        IF ms IS NULL OR ms NOT BETWEEN 1000 AND 366 * 86400000::bigint THEN
            fault := '@every ' || to_json(words[2]) || ' is not allowed: 1s to 366d, with a unit (ms, s, m, h, d)';
        END IF;
        fields.every_ms := CASE WHEN fault IS NULL THEN ms END;
        RETURN;
    ELSIF nickname LIKE '@%' AND cardinality(words) = 1 THEN
        trimmed := CASE nickname WHEN '@yearly' THEN '0 0 1 1 *' WHEN '@annually' THEN '0 0 1 1 *'
                                 WHEN '@monthly' THEN '0 0 1 * *' WHEN '@weekly' THEN '0 0 * * 0'
                                 WHEN '@daily' THEN '0 0 * * *' WHEN '@midnight' THEN '0 0 * * *'
                                 WHEN '@hourly' THEN '0 * * * *' END;
        words := string_to_array(trimmed, ' ');
    END IF;
    IF cardinality(words) IS DISTINCT FROM 5 THEN
        fault := CASE WHEN nickname LIKE '@%' THEN to_json(btrim(schedule, E' \t')) || ' is not allowed: '
                      ELSE to_json(trimmed) || ' has ' || cardinality(words) || CASE WHEN cardinality(words) = 1
                           THEN ' field' ELSE ' fields' END || '; allowed are ' END || allowed;
        RETURN;
    END IF;
    FOR i IN 1..5 LOOP
        read := @schema@.cron_field(('{minute,hour,day of month,month,day of week}'::text[])[i], words[i]);
        fault := read.fault;
        EXIT WHEN fault IS NOT NULL;
        CASE i
            WHEN 1 THEN fields.minutes := read.mask;
            WHEN 2 THEN fields.hours := read.mask;
            WHEN 3 THEN fields.days := read.mask;
            WHEN 4 THEN fields.months := read.mask;
            ELSE fields.weekdays := read.mask;
        END CASE;
    END LOOP;
    fields.either := words[3] <> '*' AND words[5] <> '*';
END
$$;

-- The first minute from `since` on that the fields allow, as a wall clock shows it. NULL: there is none, ever; what
-- comes rarest is a 29th of February, 8 years after the last one around the year 2100.
CREATE FUNCTION @schema@.cron_minute(fields @schema@.cron_fields, since timestamp) RETURNS timestamp
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    day date := since::date;
    hour int := extract(hour FROM since);
    minute int := extract(minute FROM since);
    of_month int;
    last int;           -- the month's last day
    by_day boolean;
    by_weekday boolean;
    weekday int;
BEGIN
    WHILE day < since::date + 9 * 366 LOOP
        IF fields.months >> extract(month FROM day)::int & 1 = 0 THEN
            day := date_trunc('month', day::timestamp) + interval '1 month';
            hour := 0;
            minute := 0;
            CONTINUE;
        END IF;
        of_month := extract(day FROM day);
        weekday := extract(dow FROM day);
        last := extract(day FROM date_trunc('month', day::timestamp) + interval '1 month -1 day');
        by_day := fields.days >> of_month & 1 = 1 OR (fields.days & 1 = 1 AND of_month = last);
        by_weekday := fields.weekdays >> weekday & 1 = 1
                      OR (fields.weekdays >> weekday + 8 & 1 = 1 AND of_month > last - 7);
        IF (CASE WHEN fields.either THEN by_day OR by_weekday ELSE by_day AND by_weekday END) THEN
            WHILE hour < 24 LOOP
                IF fields.hours >> hour & 1 = 1 THEN
                    WHILE minute < 60 LOOP
                        IF fields.minutes >> minute & 1 = 1 THEN
                            RETURN day + make_time(hour, minute, 0);
                        END IF;
                        minute := minute + 1;
                    END LOOP;
                END IF;
                hour := hour + 1;
                minute := 0;
            END LOOP;
        END IF;
        day := day + 1;
        hour := 0;
        minute := 0;
    END LOOP;
    RETURN NULL;
END
$$;

-- The first slot after `after`; NULL: none. A slot is the first moment at which a clock of that zone shows its time or
-- a later one: a time that is skipped comes at the jump, one that is shown twice comes at its first showing, and never twice.
-- By the session's time zone, not by AT TIME ZONE, which would take names such as CET for an abbreviation without summer
-- time; the SET clause gives the caller's back.
CREATE FUNCTION @schema@.cron_after(fields @schema@.cron_fields, after timestamptz, timezone text) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
#variable_conflict use_variable
DECLARE
    shown timestamp;
    slot timestamptz;
    before timestamptz;
    middle timestamptz;
    back float8;
BEGIN
    IF fields.every_ms IS NOT NULL THEN
        RETURN after + fields.every_ms * interval '1 millisecond';
    ELSIF fields.reboot THEN
        RETURN NULL;
    END IF;
    PERFORM set_config('timezone', cron_after.timezone, true);
    shown := date_trunc('minute', after::timestamp);
    LOOP
        -- Where a time is shown twice, those of the second showing have been: we walk to its end.
        shown := @schema@.cron_minute(fields, shown + interval '1 minute');
        IF shown IS NULL THEN
            RETURN NULL;
        END IF;
        slot := shown::timestamptz;
        IF slot::timestamp <> shown THEN
            -- Skipped: the cast has gone by what was in force before the jump, and so behind it by the time since.
            before := slot - extract(epoch FROM slot::timestamp - shown) * interval '1 second';
            WHILE slot - before > interval '1 second' LOOP
                middle := date_trunc('second', before + (slot - before) / 2);
                IF middle::timestamp > shown THEN
                    slot := middle;
                ELSE
                    before := middle;
                END IF;
            END LOOP;
        ELSE
            -- Shown twice: the cast has taken the second one. The first is back by what the clock was set back.
            before := slot - interval '24 hours';
            back := extract(epoch FROM slot - before) - extract(epoch FROM slot::timestamp - before::timestamp);
            IF back > 0 AND (slot - back * interval '1 second')::timestamp = shown THEN
                slot := slot - back * interval '1 second';
            END IF;
        END IF;
        IF slot > after THEN
            RETURN slot;
        END IF;
    END LOOP;
END
$$;

-- The newest slot from `since`, which is one, to `upto`.
CREATE FUNCTION @schema@.cron_newest(fields @schema@.cron_fields, since timestamptz, upto timestamptz, timezone text)
RETURNS timestamptz LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    newest timestamptz := since;
    none_after timestamptz := upto;
    middle timestamptz;
    slot timestamptz;
BEGIN
    IF fields.every_ms IS NOT NULL THEN
        RETURN since + floor(extract(epoch FROM upto - since) * 1000 / fields.every_ms) * fields.every_ms
                       * interval '1 millisecond';
    END IF;
    WHILE none_after - newest >= interval '1 second' LOOP
        middle := newest + (none_after - newest) / 2;
        slot := @schema@.cron_after(fields, middle, timezone);
        IF slot <= upto THEN
            newest := slot;
        ELSE
            none_after := middle;
        END IF;
    END LOOP;
    slot := @schema@.cron_after(fields, newest, timezone);
    RETURN CASE WHEN slot <= upto THEN slot ELSE newest END;
END
$$;

-- What is wrong with a time zone's name, NULL when nothing is. A setting also takes a formula such as XYZ-3: names that hold a
-- digit are looked for in the server's list, which is read from all its files and takes a while.
CREATE FUNCTION @schema@.cron_zone_fault(timezone text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
#variable_conflict use_variable
BEGIN
    IF cron_zone_fault.timezone IS NOT NULL THEN
        BEGIN
            PERFORM set_config('timezone', cron_zone_fault.timezone, true);
            IF current_setting('timezone') = cron_zone_fault.timezone AND (cron_zone_fault.timezone !~ '[0-9]'
               OR EXISTS (SELECT FROM pg_timezone_names z WHERE z.name = cron_zone_fault.timezone)) THEN
                RETURN NULL;
            END IF;
        EXCEPTION WHEN invalid_parameter_value THEN
            NULL;
        END;
    END IF;
    RETURN 'timezone must be the name of a time zone that this server knows, such as Europe/Stockholm, got '
           || coalesce(to_json(cron_zone_fault.timezone)::text, 'null');
END
$$;

-- When a schedule comes next after a time; NULL for @reboot. What is no schedule, or never comes, is refused.
CREATE FUNCTION @schema@.cron_next(schedule text, after timestamptz DEFAULT now(), timezone text DEFAULT 'UTC')
RETURNS timestamptz LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    read CONSTANT record := @schema@.cron_parse(schedule);
    fault text := 'schedule: ' || read.fault;
    fields CONSTANT @schema@.cron_fields := read.fields;
    slot timestamptz;
BEGIN
    IF fault IS NULL AND (after IS NULL OR after < '1900-01-01Z' OR after >= '9900-01-01Z') THEN
        fault := 'after must be a time of the years 1900 to 9899, got ' || coalesce(to_json(after)::text, 'null');
    END IF;
    fault := coalesce(fault, @schema@.cron_zone_fault(timezone));
    IF fault IS NULL THEN
        slot := @schema@.cron_after(fields, after, timezone);
        IF slot IS NULL AND fields.reboot IS NULL THEN
            fault := 'schedule: ' || to_json(btrim(schedule, E' \t')) || ' never comes: none of its months has such a day';
        END IF;
    END IF;
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION 'jobq.cron_next: %', fault USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN slot;
END
$$;

-- What the name and columns of a row must be, and its next slot. Not called for what cron_fire writes.
CREATE FUNCTION @schema@.crons_before_write() RETURNS trigger
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

CREATE TRIGGER crons_before_insert BEFORE INSERT ON @schema@.crons
    FOR EACH ROW EXECUTE FUNCTION @schema@.crons_before_write();
CREATE TRIGGER crons_before_update BEFORE UPDATE OF name, schedule, timezone, kind, args, queue, paused, priority,
    max_attempts, timeout_ms, meta, tags, missed ON @schema@.crons
    FOR EACH ROW EXECUTE FUNCTION @schema@.crons_before_write();

-- The node that keeps house sleeps until the next slot that it knows.
CREATE FUNCTION @schema@.crons_after_write() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
    PERFORM @schema@._notify('cron');
    RETURN NULL;
END
$$;

CREATE TRIGGER crons_after_insert AFTER INSERT ON @schema@.crons
    FOR EACH ROW EXECUTE FUNCTION @schema@.crons_after_write();
CREATE TRIGGER crons_after_update AFTER UPDATE OF schedule, timezone, paused, next_at ON @schema@.crons
    FOR EACH ROW WHEN (NEW.next_at < OLD.next_at OR OLD.next_at IS NULL AND NEW.next_at IS NOT NULL)
    EXECUTE FUNCTION @schema@.crons_after_write();

-- Enqueues the job of one slot; NULL: by hand.
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

-- Enqueues the jobs of one cron's slots that have come, at most `most` of them, and moves it on; returns how many.
CREATE FUNCTION @schema@.cron_fire_one(cron @schema@.crons, upto timestamptz, most int) RETURNS int
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

-- These four are what jobqd calls: SECURITY DEFINER, so that its role needs no right but on them.

-- Enqueues the jobs of all slots that have come. To be called when the next one has, by any number of callers: a row is
-- locked while its slots are enqueued and moved on, and who finds it locked leaves it alone; so is one whose job waits for a
-- lock (a trigger of the application's wants a row of its own), which is tried again after a second. fired: how many jobs;
-- next_ms: when to come again, 0: at once, since there are more; null: nothing is due, ever.
CREATE FUNCTION @schema@.cron_fire(OUT fired int, OUT next_ms bigint)
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

-- A node has come up: enqueues the @reboot jobs if it is the first one. fired: how many. fresh: its process has just
-- started; it has not lost a lease and come back. Of several that come up at once the first one here is the first: its
-- mark is there when the others have the lock. remaining: crons that another session has locked, for which it is to be called
-- again.
CREATE FUNCTION @schema@.cron_boot(node bigint, fresh boolean, OUT fired int, OUT remaining int)
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

-- Takes these nodes out of the crons' declared_by, and deletes the crons that no other node has. One whose row is locked is
-- left for the next call. One that the database refuses to change is left, too, found by halving, and named in fault: it stops
-- no other. removed: those that were deleted; changed: how many were written; refused: those in fault.
CREATE FUNCTION @schema@._cron_let_go(names text[], nodes text[], OUT removed text[], OUT changed int, OUT refused text[],
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
                fault := concat_ws('; ', fault, format('cron %s, which is in no configuration any more: %s', free[low],
                                                       left(SQLERRM, 1000)));
            END IF;
        END;
    END LOOP;
END
$$;

-- What a node's configuration has: an object of its sections by name, each with what it says of schedule, kind, args,
-- queue, timezone, priority, max_attempts, missed, timeout_ms and meta. A section counts when it is new or is not what
-- this node said last: what SQL or another node's newer section made of its row meanwhile stays until then. changed: rows
-- written or deleted; busy: rows that somebody else has locked, for which it is to be called again; fault: what was refused.
CREATE FUNCTION @schema@.cron_declare(node text, sections jsonb, OUT changed int, OUT busy int, OUT fault text)
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

-- Lets go of what nodes said that are gone for good: that have had no lease for a day. Such a day is one that was
-- watched: a node that keeps house calls this each minute, and where nobody has for five (no node was up, or
-- the clock was set) it begins anew; it ends when the node is back. removed: crons that no other node has; names: theirs. One
-- that the database refuses to delete is named in a warning.
CREATE FUNCTION @schema@.cron_sweep(OUT removed int, OUT names text)
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

-- ---- for operators ----

-- Adds a cron, or makes the one of that name so; one that is paused stays so.
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

-- The cron of that name, locked; an error when there is none.
CREATE FUNCTION @schema@.cron_find(caller text, name text) RETURNS @schema@.crons
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    cron @schema@.crons;
BEGIN
    SELECT * INTO cron FROM @schema@.crons c WHERE c.name = cron_find.name FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'jobq.%: no cron has the name %', caller, coalesce(to_json(cron_find.name)::text, 'null')
            USING ERRCODE = 'no_data_found';
    END IF;
    RETURN cron;
END
$$;

-- No slot of it is enqueued any more: true; false when it was paused already.
CREATE FUNCTION @schema@.cron_pause(name text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    cron CONSTANT @schema@.crons := @schema@.cron_find('cron_pause', cron_pause.name);
BEGIN
    UPDATE @schema@.crons c SET paused = true WHERE c.name = cron.name AND NOT c.paused;
    RETURN FOUND;
END
$$;

-- It goes on with the next slot from now: true; false when it was not paused. What came meanwhile does not count as missed.
CREATE FUNCTION @schema@.cron_resume(name text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    cron CONSTANT @schema@.crons := @schema@.cron_find('cron_resume', cron_resume.name);
BEGIN
    UPDATE @schema@.crons c SET paused = false WHERE c.name = cron.name AND c.paused;
    RETURN FOUND;
END
$$;

-- A cron that a node's configuration has comes back when that node starts or reads its configuration again.
CREATE FUNCTION @schema@.cron_delete(name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    cron CONSTANT @schema@.crons := @schema@.cron_find('cron_delete', cron_delete.name);
BEGIN
    DELETE FROM @schema@.crons c WHERE c.name = cron.name;
END
$$;

-- Enqueues its job now, paused or not, beside its schedule; returns the id.
CREATE FUNCTION @schema@.cron_run(name text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    cron CONSTANT @schema@.crons := @schema@.cron_find('cron_run', cron_run.name);
BEGIN
    RETURN @schema@.cron_enqueue(cron, NULL);
END
$$;

-- Rows from before this step: each gets its next slot, or says why not.
DO $$
DECLARE
    old record;
BEGIN
    FOR old IN SELECT c.name, c.schedule, c.timezone FROM @schema@.crons c WHERE NOT c.paused LOOP
        BEGIN
            UPDATE @schema@.crons c SET next_at = @schema@.cron_next(old.schedule, now(), old.timezone) WHERE c.name = old.name;
        EXCEPTION WHEN data_exception THEN
            UPDATE @schema@.crons c SET error = left(SQLERRM, 1000), failed_at = now() WHERE c.name = old.name;
        END;
    END LOOP;
END
$$;
