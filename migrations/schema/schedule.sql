-- The language of schedules, and the next time of a schedule.

-- jobqd/pure/cron.c reads the same language and gives the same answers; tests compare the two. COLLATE "C": in a Turkish
-- database lower('FRI') has no i.
CREATE OR REPLACE FUNCTION @schema@._cron_field(field text, value text, OUT mask bigint, OUT fault text)
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
            high := 7;  -- at the end of a range Sunday ends the week
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
COMMENT ON FUNCTION @schema@._cron_field IS
    'The values that one field of a schedule allows, as a mask; fault: what is wrong with it, or null.';

CREATE OR REPLACE FUNCTION @schema@._cron_parse(schedule text, OUT fields @schema@._cron_fields, OUT fault text)
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
        read := @schema@._cron_field(('{minute,hour,day of month,month,day of week}'::text[])[i], words[i]);
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
COMMENT ON FUNCTION @schema@._cron_parse IS 'Reads a schedule; fault: what is wrong with it, or null.';

-- The rarest time is a 29th of February: around the year 2100 it comes 8 years after the last one.
CREATE OR REPLACE FUNCTION @schema@._cron_minute(fields @schema@._cron_fields, since timestamp) RETURNS timestamp
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
COMMENT ON FUNCTION @schema@._cron_minute IS
    'The first minute from `since` on that the fields allow, as a wall clock shows it; null: there is none, ever.';

-- A slot is the first moment at which a clock of that zone shows the schedule's time or a later one. A time that the clocks
-- skip comes at the jump. A time that they show twice comes at its first showing, and never twice. It goes by the session's
-- time zone, not by AT TIME ZONE, which would take names such as CET for an abbreviation without summer time. The SET clause
-- restores the caller's time zone.
CREATE OR REPLACE FUNCTION @schema@._cron_after(fields @schema@._cron_fields, after timestamptz, timezone text) RETURNS timestamptz
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
    PERFORM set_config('timezone', _cron_after.timezone, true);
    shown := date_trunc('minute', after::timestamp);
    LOOP
        -- Where a time is shown twice, its second showing has no slots: we walk to the end of it.
        shown := @schema@._cron_minute(fields, shown + interval '1 minute');
        IF shown IS NULL THEN
            RETURN NULL;
        END IF;
        slot := shown::timestamptz;
        IF slot::timestamp <> shown THEN
            -- Skipped: the cast used the offset from before the jump, so slot lies after the jump. The loop finds the jump.
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
            -- Shown twice: the cast took the second showing. The first is earlier by the time that the clock was set back.
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
COMMENT ON FUNCTION @schema@._cron_after IS 'The first slot after `after`; null: none.';

CREATE OR REPLACE FUNCTION @schema@._cron_newest(fields @schema@._cron_fields, since timestamptz, upto timestamptz, timezone text)
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
        slot := @schema@._cron_after(fields, middle, timezone);
        IF slot <= upto THEN
            newest := slot;
        ELSE
            none_after := middle;
        END IF;
    END LOOP;
    slot := @schema@._cron_after(fields, newest, timezone);
    RETURN CASE WHEN slot <= upto THEN slot ELSE newest END;
END
$$;
COMMENT ON FUNCTION @schema@._cron_newest IS 'The newest slot from `since`, which is a slot itself, to `upto`.';

-- The setting also takes a formula such as XYZ-3. So a name with a digit is looked up in the server's list, which is read
-- from all its files and takes a while.
CREATE OR REPLACE FUNCTION @schema@._cron_zone_fault(timezone text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
#variable_conflict use_variable
BEGIN
    IF _cron_zone_fault.timezone IS NOT NULL THEN
        BEGIN
            PERFORM set_config('timezone', _cron_zone_fault.timezone, true);
            IF current_setting('timezone') = _cron_zone_fault.timezone AND (_cron_zone_fault.timezone !~ '[0-9]'
               OR EXISTS (SELECT FROM pg_timezone_names z WHERE z.name = _cron_zone_fault.timezone)) THEN
                RETURN NULL;
            END IF;
        EXCEPTION WHEN invalid_parameter_value THEN
            NULL;
        END;
    END IF;
    RETURN 'timezone must be the name of a time zone that this server knows, such as Europe/Stockholm, got '
           || coalesce(to_json(_cron_zone_fault.timezone)::text, 'null');
END
$$;
COMMENT ON FUNCTION @schema@._cron_zone_fault IS 'The fault of a time zone''s name; null: none.';

CREATE OR REPLACE FUNCTION @schema@.cron_next(schedule text, after timestamptz DEFAULT now(), timezone text DEFAULT 'UTC')
RETURNS timestamptz LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    read CONSTANT record := @schema@._cron_parse(schedule);
    fault text := 'schedule: ' || read.fault;
    fields CONSTANT @schema@._cron_fields := read.fields;
    slot timestamptz;
BEGIN
    IF fault IS NULL AND (after IS NULL OR after < '1900-01-01Z' OR after >= '9900-01-01Z') THEN
        fault := 'after must be a time of the years 1900 to 9899, got ' || coalesce(to_json(after)::text, 'null');
    END IF;
    fault := coalesce(fault, @schema@._cron_zone_fault(timezone));
    IF fault IS NULL THEN
        slot := @schema@._cron_after(fields, after, timezone);
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
COMMENT ON FUNCTION @schema@.cron_next IS
'Returns the first time at which a schedule comes after a given time; null for a schedule that runs at reboot.
schedule is five fields (minute, hour, day of month, month, day of week), each a list of values, ranges and steps, or a name
with an at sign in front of it: yearly (annually), monthly, weekly, daily (midnight), hourly, reboot, or every and a time of
1s to 366d.
after is a time of the years 1900 to 9899. timezone is a name that the server knows, such as Europe/Stockholm.
SQLSTATE: 22023 an argument is wrong, or the schedule never comes.';
