-- What a value may hold, and how values are printed.
--
-- jsonb keeps 1e131071 in 8 bytes and prints it as 131,072 digits. So the size of a value is the size of its text, and
-- numbers have a bound of their own: 4000 digits before the point and 4000 after it (Python reads no integer of more than
-- 4300). Measuring a value must not print it, so numbers are compared with numbers.

-- bound is 10 to the power of the digits before the point, most is the digits behind it. There is no SET clause, so that the
-- function is inlined into its callers, which have set their search_path.
CREATE OR REPLACE FUNCTION @schema@._long_number(value jsonb, bound numeric DEFAULT 1e4000, most int DEFAULT 4000) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT EXISTS (SELECT FROM pg_catalog.jsonb_path_query(value, 'strict $.** ? (@.type() == "number")') n (number)
                    WHERE pg_catalog.abs(n.number::numeric) >= bound OR pg_catalog.scale(n.number::numeric) > most)
$$;
COMMENT ON FUNCTION @schema@._long_number IS
    'Whether a number in the value has too many digits before or behind its point (more than 4000 by default).';

-- Where the size exceeds `most` it may be found without making the text: then exact is false, and bytes is a lower bound.
-- long_number is as in _long_number; it may be null where exact is false.
CREATE OR REPLACE FUNCTION @schema@._json_size(value jsonb, most bigint, OUT bytes bigint, OUT exact boolean, OUT long_number boolean)
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    plain CONSTANT jsonb := value #> '{}'; -- unpacked, if it is stored compressed
    stored CONSTANT bigint := pg_column_size(plain);
    digits bigint;
BEGIN
    -- No value is stored in more than four times its text: "0, " takes 12 bytes. Few bytes cannot hold many long numbers.
    exact := stored / 4 - 8 <= most;
    IF NOT exact THEN
        bytes := stored / 4 - 8;
        RETURN;
    END IF;
    SELECT coalesce(sum(n.least), 0), coalesce(bool_or(abs(n.number) >= 1e4000 OR scale(n.number) > 4000), false)
      INTO digits, long_number
      FROM (SELECT p.number::numeric AS number,
                   scale(p.number::numeric) + CASE WHEN abs(p.number::numeric) < 1e64 THEN 0
                                                   WHEN abs(p.number::numeric) < 1e256 THEN 64
                                                   WHEN abs(p.number::numeric) < 1e1024 THEN 256
                                                   WHEN abs(p.number::numeric) < 1e4000 THEN 1024
                                                   WHEN abs(p.number::numeric) < 1e16384 THEN 4000
                                                   WHEN abs(p.number::numeric) < 1e65536 THEN 16384
                                                   ELSE 65536 END AS least
              FROM jsonb_path_query(plain, 'strict $.** ? (@.type() == "number")') p (number)) n;
    exact := digits <= most;
    bytes := CASE WHEN exact THEN octet_length(plain::text) ELSE digits END;
END
$$;
COMMENT ON FUNCTION @schema@._json_size IS 'The size of a JSON value as text, in bytes.';

-- quoted: the quotes of a text count among its bytes.
CREATE OR REPLACE FUNCTION @schema@._shown(got jsonb, quoted boolean DEFAULT false) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    size CONSTANT record := @schema@._json_size(got, 1000000);
BEGIN
    RETURN CASE WHEN got IS NULL THEN 'null'
                WHEN NOT size.exact THEN format('%s %s of at least %s bytes', CASE jsonb_typeof(got)
                         WHEN 'object' THEN 'an' WHEN 'array' THEN 'an' ELSE 'a' END, jsonb_typeof(got), size.bytes)
                WHEN size.long_number THEN format('%s of %s bytes', CASE jsonb_typeof(got)
                         WHEN 'number' THEN 'a number' ELSE 'a number in an ' || jsonb_typeof(got) END, size.bytes)
                WHEN size.bytes <= 100 THEN got::text
                ELSE left(got::text, 60) || format('... (%s bytes)', CASE WHEN quoted THEN size.bytes
                                                                        ELSE octet_length(got #>> '{}') END) END;
END
$$;
COMMENT ON FUNCTION @schema@._shown IS
    'A JSON value for the text of an error: the whole of it, or its beginning and its size.';

CREATE OR REPLACE FUNCTION @schema@._readable(value jsonb, most bigint DEFAULT 67108864) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    size CONSTANT record := @schema@._json_size(value, most);
BEGIN
    RETURN CASE WHEN value IS NULL THEN NULL
                WHEN size.exact AND NOT size.long_number AND size.bytes <= most THEN value
                ELSE to_jsonb('too long to show: ' || @schema@._shown(value)) END;
END
$$;
COMMENT ON FUNCTION @schema@._readable IS
    'The value for display, or a text with its size if it is longer than `most` bytes or few programs can read its numbers.';

CREATE OR REPLACE FUNCTION @schema@._content_fault(value jsonb, meta jsonb DEFAULT NULL, name text DEFAULT 'args') RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    most CONSTANT bigint := coalesce((SELECT s.max_job_bytes FROM @schema@.settings s), 4190208);
    total bigint := 0;
    part record;
    size record;
BEGIN
    FOR part IN SELECT p.name, p.value FROM (VALUES (name, value), ('meta', meta)) p (name, value)
                 WHERE p.value IS NOT NULL LOOP
        size := @schema@._json_size(part.value, most);
        IF size.long_number THEN
            RETURN part.name || ' must not hold a number with more than 4000 digits before or after the decimal point';
        END IF;
        total := total + size.bytes;
        IF total > most THEN
            RETURN format('%s must be at most %s bytes of JSON (max_job_bytes of table settings), got %s%s',
                          CASE name WHEN 'args' THEN 'args and meta' ELSE name END, most,
                          CASE WHEN size.exact THEN '' ELSE 'at least ' END, total);
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION @schema@._content_fault IS
    'The fault in the size or the numbers of a job''s args and meta together, or of a result; null: none.';

-- The cut is between characters. With ending 0 the text is cut at its end, without a note.
CREATE OR REPLACE FUNCTION @schema@._cut(value text, most int, ending int DEFAULT 0) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    bytes CONSTANT bytea := convert_to(value, 'UTF8');
    mark text := '';
    head int := most;
    tail int := length(bytes);
BEGIN
    IF tail <= most THEN
        RETURN value;
    END IF;
    IF ending > 0 THEN
        mark := format(E'\n[... %s bytes are left out ...]\n', tail - most + 64);
        head := most - ending - 64; -- the mark is shorter than that
        tail := tail - ending;
        WHILE tail < length(bytes) AND get_byte(bytes, tail) & 192 = 128 LOOP
            tail := tail + 1;
        END LOOP;
    END IF;
    WHILE head > 0 AND get_byte(bytes, head) & 192 = 128 LOOP
        head := head - 1;
    END LOOP;
    RETURN convert_from(substring(bytes FROM 1 FOR head), 'UTF8') || mark
           || convert_from(substring(bytes FROM tail + 1), 'UTF8');
END
$$;
COMMENT ON FUNCTION @schema@._cut IS
    'The text cut to `most` bytes: its beginning, a note of how much is left out, and its last `ending` bytes.';

CREATE OR REPLACE FUNCTION @schema@._errors(errors jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN jsonb_typeof(errors) = 'array' THEN errors
                WHEN jsonb_typeof(errors) = 'object' AND errors <> '{}' THEN jsonb_build_array(errors)
                ELSE '[]' END
$$;
COMMENT ON FUNCTION @schema@._errors IS 'A job''s errors as an array, whatever the column holds.';

CREATE OR REPLACE FUNCTION @schema@._crashes(errors jsonb, since int) RETURNS int
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(*)::int
      FROM jsonb_array_elements(CASE WHEN jsonb_typeof(errors) = 'array' THEN errors ELSE '[]' END) e (entry)
     WHERE e.entry ->> 'kind' IN ('crash', 'memory') AND e.entry -> 'attempt' > to_jsonb(coalesce(since, 0))
$$;
COMMENT ON FUNCTION @schema@._crashes IS
    'How many workers a job has crashed since the attempt after which it was last retried by hand.';

-- The result is an object. Its error has at most 4 KiB, its detail and its output at most 64 KiB each. Its other members
-- have at most 8 KiB together; if they have more, only the small ones are kept.
CREATE OR REPLACE FUNCTION @schema@._error_entry(entry jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    kept jsonb := '{}';
    rest jsonb := entry;
    name text;
BEGIN
    IF jsonb_typeof(entry) IS DISTINCT FROM 'object' THEN
        RETURN jsonb_build_object('error', CASE WHEN jsonb_typeof(entry) = 'string'
            THEN @schema@._cut(entry #>> '{}', 4096)
            ELSE 'this entry was not an object: ' || coalesce(jsonb_typeof(entry), 'null') END);
    END IF;
    FOREACH name IN ARRAY '{error,detail,output}'::text[] LOOP
        IF jsonb_typeof(entry -> name) = 'string' THEN
            kept := kept || jsonb_build_object(name, CASE WHEN name = 'error' THEN @schema@._cut(entry ->> name, 4096)
                                                          ELSE @schema@._cut(entry ->> name, 65536, 32768) END);
            rest := rest - name;
        END IF;
    END LOOP;
    IF pg_column_size(rest) > 8192 OR @schema@._long_number(rest, 1e40, 40) THEN
        SELECT coalesce(jsonb_object_agg(m.key, m.value), '{}') INTO rest
          FROM (SELECT e.key, e.value
                  FROM jsonb_each(rest) e
                 WHERE octet_length(e.key) <= 64 AND pg_column_size(e.value) <= 160
                       AND jsonb_typeof(e.value) NOT IN ('object', 'array') AND NOT @schema@._long_number(e.value, 1e40, 40)
                 ORDER BY e.key COLLATE "C"
                 LIMIT 32) m;
    END IF;
    RETURN rest || kept;
END
$$;
COMMENT ON FUNCTION @schema@._error_entry IS 'An entry of errors, cut to what may be kept.';

-- No old value is an error: a value that is not an array counts as an empty one, except for an object with members, which
-- was meant as an entry. Each failed attempt writes the whole array again, so it needs a bound.
CREATE OR REPLACE FUNCTION @schema@._add_error(errors jsonb, entry jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    list jsonb := @schema@._errors(errors #> '{}'); -- unpacked once; its size is then not that of the stored form
    n CONSTANT int := jsonb_array_length(list);
BEGIN
    IF n = 100 THEN
        list := list - 5;
    ELSIF n > 100 THEN
        SELECT jsonb_agg(e.entry ORDER BY e.nth) INTO list
          FROM jsonb_array_elements(list) WITH ORDINALITY e (entry, nth)
         WHERE e.nth <= 5 OR e.nth > n - 94;
    END IF;
    -- A small value cannot hold a long text; any other value is examined entry by entry.
    IF jsonb_typeof(entry) = 'object' AND pg_column_size(entry) <= 4096 AND pg_column_size(list) <= 65536
       AND NOT jsonb_path_exists(list, 'strict $[*] ? (@.type() != "object")') THEN
        list := list || entry;
        IF NOT @schema@._long_number(list, 1e40, 40) THEN
            RETURN list;
        END IF;
        list := list - -1;
    END IF;
    SELECT coalesce(jsonb_agg(@schema@._error_entry(e.entry) ORDER BY e.nth), '[]') INTO list
      FROM jsonb_array_elements(list) WITH ORDINALITY e (entry, nth);
    RETURN list || jsonb_build_array(@schema@._error_entry(entry));
END
$$;
COMMENT ON FUNCTION @schema@._add_error IS
    'A job''s errors with one more entry; of more than 100 entries the first 5 and the newest 95 are kept.';

-- ---- the values of a filter ----

CREATE OR REPLACE FUNCTION @schema@._shown_quoted(got jsonb) RETURNS text LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT @schema@._shown(got, true)
$$;
COMMENT ON FUNCTION @schema@._shown_quoted IS
    'Like _shown, for an error about a filter: the quotes of a text count among its bytes.';

CREATE OR REPLACE FUNCTION @schema@._texts_of(got jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE jsonb_typeof(got)
           WHEN 'string' THEN ARRAY[got #>> '{}']
           WHEN 'array' THEN CASE WHEN NOT jsonb_path_exists(got, 'strict $[*] ? (@.type() != "string")')
                                  THEN ARRAY(SELECT jsonb_array_elements_text(got)) END
           END
$$;
COMMENT ON FUNCTION @schema@._texts_of IS 'A text or an array of texts as text[]; null for any other value.';

CREATE OR REPLACE FUNCTION @schema@._numbers_of(got jsonb, min bigint, max bigint) RETURNS bigint[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN jsonb_path_exists(a.list, 'strict $[*] ? (@.type() != "number")') THEN NULL
                WHEN EXISTS (SELECT FROM jsonb_array_elements(a.list) e (n)
                              WHERE n::numeric NOT BETWEEN min AND max OR n::numeric <> trunc(n::numeric)) THEN NULL
                ELSE ARRAY(SELECT n::numeric::bigint FROM jsonb_array_elements(a.list) e (n)) END
      FROM (SELECT CASE WHEN jsonb_typeof(got) = 'array' THEN got ELSE jsonb_build_array(got) END AS list) a
$$;
COMMENT ON FUNCTION @schema@._numbers_of IS
    'A whole number from min to max, or an array of such numbers, as bigint[]; null for any other value.';

CREATE OR REPLACE FUNCTION @schema@._iso(at timestamptz) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT to_jsonb(at) #>> '{}'
$$;
COMMENT ON FUNCTION @schema@._iso IS
    'A time as the text of a literal, which means the same under every DateStyle and TimeZone.';

CREATE OR REPLACE FUNCTION @schema@._time_of(got jsonb) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    at timestamptz;
BEGIN
    IF jsonb_typeof(got) = 'string' THEN
        at := (got #>> '{}')::timestamptz;
    END IF;
    RETURN CASE WHEN isfinite(at) THEN at END;
EXCEPTION
    WHEN data_exception THEN
        RETURN NULL;
END
$$;
COMMENT ON FUNCTION @schema@._time_of IS 'The value as a finite time; null for any other value.';

-- Without a zone the text means another moment on another server, and with another TimeZone, so such a time is refused. The
-- form is that of RFC 3339, so DateStyle does not matter either.
CREATE OR REPLACE FUNCTION @schema@._names_zone(at text) RETURNS boolean LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT $1 ~ ('^[0-9]{4,6}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]+)?)?'
                 '[ ]?([Zz]|[+-][0-9]{2}(:?[0-9]{2}){0,2})$')
$$;
COMMENT ON FUNCTION @schema@._names_zone IS 'Whether a time as text names its zone.';

-- Call it once the text is known to be a time.
CREATE OR REPLACE FUNCTION @schema@._zone_fault(job jsonb, field text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN NOT @schema@._names_zone($1 ->> $2)
                THEN $2 || ' must name its zone, as in "2026-01-31T12:00:00Z" or "2026-01-31T13:00:00+01:00", got '
                     || @schema@._shown($1 -> $2) END
$$;
COMMENT ON FUNCTION @schema@._zone_fault IS 'The fault of a time of enqueue_many that does not name its zone; null: none.';

-- ---- how times are printed ----

CREATE OR REPLACE FUNCTION @schema@._utc(at timestamptz) RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN isfinite($1) THEN to_char($1 AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') ELSE $1::text END
$$;
COMMENT ON FUNCTION @schema@._utc IS 'A time as the commands print it in JSON: RFC 3339, in UTC.';

CREATE OR REPLACE FUNCTION @schema@._ago(at timestamptz) RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN NOT isfinite($1) THEN $1::text
                ELSE to_char($1 AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
                     || format(CASE WHEN d.s < 0 THEN ' (in %s)' ELSE ' (%s ago)' END,
                         CASE WHEN abs(d.s) < 60 THEN abs(d.s) || ' s' WHEN abs(d.s) < 3600 THEN abs(d.s) / 60 || ' min'
                              WHEN abs(d.s) < 172800 THEN abs(d.s) / 3600 || ' h' ELSE abs(d.s) / 86400 || ' d' END) END
      FROM (SELECT CASE WHEN isfinite($1) THEN trunc(extract(epoch FROM clock_timestamp() - $1))::bigint END AS s) d
$$;
COMMENT ON FUNCTION @schema@._ago IS 'A time for people: in UTC, to the second, and how long ago that is.';

CREATE OR REPLACE FUNCTION @schema@._in_zone(at timestamptz, zone text) RETURNS text
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
COMMENT ON FUNCTION @schema@._in_zone IS
    'A time as the clocks of a zone show it, with their offset; in UTC if the server does not know the zone.';

CREATE OR REPLACE FUNCTION @schema@._sorted_texts(texts jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_agg(t.text ORDER BY t.text COLLATE "C")
      FROM (SELECT DISTINCT e.text COLLATE "C" AS text FROM jsonb_array_elements_text(texts) e (text)) t
$$;
COMMENT ON FUNCTION @schema@._sorted_texts IS 'The distinct texts of a JSON array, sorted; null for null.';

CREATE OR REPLACE FUNCTION @schema@._is_no_list_of(value jsonb, allowed jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN jsonb_typeof(value) <> 'array' THEN true
                WHEN jsonb_array_length(value) = 0 THEN true
                WHEN jsonb_path_exists(value, 'strict $[*] ? (@.type() != "string")') THEN true
                ELSE NOT coalesce(value <@ allowed, true) END
$$;
COMMENT ON FUNCTION @schema@._is_no_list_of IS
    'Whether a value is anything but an array of at least one text, each of them among the allowed ones (null: any).';
