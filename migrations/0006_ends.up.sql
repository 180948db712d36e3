-- jobq, migration 6: what one value may hold; more ways to end: expires_at, and jobs that are to leave no trace.

-- ---- what one value may hold ----
--
-- jsonb keeps 1e131071 in 8 bytes and writes 131,072 digits. So what matters is the text, and a number has a bound of its
-- own: 4000 digits before its point, and 4000 behind it (Python reads no integer of more than 4300). To make the
-- text in order to measure it is what must not happen, so numbers are compared with numbers.

-- What holds for the whole schema: one row. An operator changes it by UPDATE, jobs that are there already stay.
CREATE TABLE @schema@.settings (
    singleton     boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    -- args and meta of a job together, and a result, as text. With the rest of the message it makes 4 MiB, which
    -- is jobqd's max_frame, unless that is changed.
    max_job_bytes int NOT NULL DEFAULT 4190208 CHECK (max_job_bytes BETWEEN 65536 AND 67104768)
);
INSERT INTO @schema@.settings DEFAULT VALUES;

-- Whether some number in the value is longer than so many digits before its point (bound: 10 to that power) or behind it.
-- Without a SET clause, so that it is inlined where it is called: from functions that have set their search_path.
CREATE FUNCTION @schema@._long_number(value jsonb, bound numeric DEFAULT 1e4000, most int DEFAULT 4000) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT EXISTS (SELECT FROM pg_catalog.jsonb_path_query(value, 'strict $.** ? (@.type() == "number")') n (number)
                    WHERE pg_catalog.abs(n.number::numeric) >= bound OR pg_catalog.scale(n.number::numeric) > most)
$$;

-- How long a value is as text. Where that is more than `most` it may be found out without making the text: then exact is
-- false, and bytes is what it is at least. long_number: see above; not looked for where exact is false.
CREATE FUNCTION @schema@._json_size(value jsonb, most bigint, OUT bytes bigint, OUT exact boolean, OUT long_number boolean)
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    plain CONSTANT jsonb := value #> '{}'; -- unpacked, if it is stored compressed
    stored CONSTANT bigint := pg_column_size(plain);
    digits bigint;
BEGIN
    -- Nothing is stored in more than four times its text: "0, " takes 12 bytes. Few bytes cannot hold many long numbers.
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

-- A value for an error's text. quoted: of a text the quotes count among its bytes.
CREATE FUNCTION @schema@._shown(got jsonb, quoted boolean DEFAULT false) RETURNS text
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

-- A value for display: itself, or a text that tells its size if it is longer than `most` bytes or holds a number that few
-- programs can read.
CREATE FUNCTION @schema@._readable(value jsonb, most bigint DEFAULT 67108864) RETURNS jsonb
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

-- What is wrong with the size of a job's args and meta together, or of a result, and with their numbers; null: nothing.
CREATE FUNCTION @schema@._content_fault(value jsonb, meta jsonb DEFAULT NULL, name text DEFAULT 'args') RETURNS text
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
            RETURN part.name || ' must hold no number of more than 4000 digits before its point or behind it';
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

-- A job's errors as an array, whatever is there.
CREATE FUNCTION @schema@._errors(errors jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN jsonb_typeof(errors) = 'array' THEN errors
                WHEN jsonb_typeof(errors) = 'object' AND errors <> '{}' THEN jsonb_build_array(errors)
                ELSE '[]' END
$$;

-- How many workers a job has crashed since the attempt after which somebody retried it by hand.
CREATE FUNCTION @schema@._crashes(errors jsonb, since int) RETURNS int
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(*)::int
      FROM jsonb_array_elements(CASE WHEN jsonb_typeof(errors) = 'array' THEN errors ELSE '[]' END) e (entry)
     WHERE e.entry ->> 'kind' IN ('crash', 'memory') AND e.entry -> 'attempt' > to_jsonb(coalesce(since, 0))
$$;

-- A text of at most `most` bytes: its beginning, its last `ending` bytes where the middle is left out, and between them what
-- was left out. Cut between characters; with ending 0 it is cut at its end, without a word.
CREATE FUNCTION @schema@._cut(value text, most int, ending int DEFAULT 0) RETURNS text
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

-- An entry of `errors` as it may be kept: an object whose error is at most 4 KiB, its detail and its output at most
-- 64 KiB each; whose other members are at most 8 KiB together, else the small ones of them are kept.
CREATE FUNCTION @schema@._error_entry(entry jsonb) RETURNS jsonb
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
            ELSE 'this entry was no object: ' || coalesce(jsonb_typeof(entry), 'null') END);
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

-- A job's errors with one more. Whatever was there, it is no fault: what is no array counts as an empty one, but for an
-- object with members, which was meant as an entry; of more than 100 entries the first 5 and the newest 95 are kept.
-- So what is written again with each failed attempt has a bound.
CREATE FUNCTION @schema@._add_error(errors jsonb, entry jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    list jsonb := @schema@._errors(errors #> '{}'); -- unpacked once, and its size is not that of what is stored
    n CONSTANT int := jsonb_array_length(list);
BEGIN
    IF n = 100 THEN
        list := list - 5;
    ELSIF n > 100 THEN
        SELECT jsonb_agg(e.entry ORDER BY e.nth) INTO list
          FROM jsonb_array_elements(list) WITH ORDINALITY e (entry, nth)
         WHERE e.nth <= 5 OR e.nth > n - 94;
    END IF;
    -- What is small cannot hold a long text; the rest is looked at entry by entry.
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

-- ---- what the steps before lack ----
--
-- They stand as they were first released. All that comes later rests on what is here.

-- Tells the nodes of something new, unless the session's jobq.notify is off: a transaction that has notified cannot be
-- prepared (PREPARE TRANSACTION). They find it by looking then, within their poll_interval. A setting that was made with SET
-- LOCAL is empty after its transaction. Without a SET clause, so every name is qualified: it is called for each wake-up.
CREATE FUNCTION @schema@._notify(message text) RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    setting CONSTANT pg_catalog.text := pg_catalog.lower(pg_catalog.current_setting('jobq.notify', true));
BEGIN
    IF setting OPERATOR(pg_catalog.=) ANY ('{off,false,no,0}'::pg_catalog.text[]) THEN
        RETURN;
    ELSIF setting OPERATOR(pg_catalog.<>) ALL ('{on,true,yes,1,""}'::pg_catalog.text[]) THEN
        RAISE EXCEPTION 'jobq.notify must be on or off, got %', pg_catalog.to_json(setting)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_catalog.pg_notify('@channel@', message);
END
$$;

-- Wakes the nodes that wait idle for these queues. NOTIFY takes a lock for the whole server at commit,
-- so nobody is notified who does not wait.
CREATE OR REPLACE FUNCTION @schema@.wake(queues text[]) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT @schema@._notify('queue ' || q.queue)
      FROM (SELECT DISTINCT i.queue FROM @schema@.idle i WHERE i.queue = ANY ($1)) q
$$;

-- Whether an error is about the transaction or the server as a whole: it ends the call, which is made again. All else may be one
-- row's fault, whatever its class: a trigger may meet a deadlock, a serialization failure or a limit, lose a connection of
-- its own, or declare its transaction read only. A full disk is the server's: to blame each job for it would take their
-- ends apart for as long as the disk is full, and longer.
CREATE FUNCTION @schema@._is_passing(state text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN left(state, 2) = '40' THEN current_setting('transaction_isolation') <> 'read committed'
                WHEN state = '25006' THEN current_setting('transaction_read_only') = 'on'
                ELSE state = '53100' END
$$;

-- Makes the partitions that are missing of `days` days from from_day on; returns how many. A partition is made as a
-- table and then attached, which takes no ACCESS EXCLUSIVE lock on the parents. What the default
-- partition holds of that day moves over in the same transaction. SECURITY DEFINER: only the owner may, and
-- jobqd need not be the owner. Default privileges may have given the new table to PUBLIC or a role of ours.
CREATE OR REPLACE FUNCTION @schema@.create_partitions(from_day date, days int) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO'
SET lock_timeout = '200ms' AS $$
#variable_conflict use_variable
DECLARE
    made int := 0;
    parent text;
    partition text;
    day date;
    member text;
BEGIN
    IF from_day IS NULL OR NOT isfinite(from_day) THEN
        RAISE EXCEPTION 'jobq.create_partitions: from_day must be a date, got %', coalesce(from_day::text, 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF days IS NULL OR days NOT BETWEEN 0 AND 366 THEN
        RAISE EXCEPTION 'jobq.create_partitions: days must be 0 to 366, got %', coalesce(days::text, 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR parent, day IN
        SELECT p.name, from_day + n.n
          FROM unnest(ARRAY['finished_completed', 'finished_failed']) p (name), generate_series(0, days - 1) n (n)
    LOOP
        partition := parent || to_char(day, '"_p"YYYYMMDD');
        CONTINUE WHEN to_regclass(format('@schema@.%I', partition)) IS NOT NULL;
        BEGIN
            -- One maker at a time. The default partition is locked in the end by ATTACH anyway: from the start, so
            -- that nothing comes into it behind the move, and no lock is raised.
            EXECUTE format('LOCK TABLE ONLY @schema@.%I IN SHARE UPDATE EXCLUSIVE MODE', parent);
            CONTINUE WHEN to_regclass(format('@schema@.%I', partition)) IS NOT NULL;
            EXECUTE format('LOCK TABLE @schema@.%I IN ACCESS EXCLUSIVE MODE', parent || '_default');
            EXECUTE format('CREATE TABLE @schema@.%I (LIKE @schema@.%I INCLUDING ALL)', partition, parent);
            EXECUTE format('ALTER TABLE @schema@.%I REPLICA IDENTITY FULL', partition);
            FOR member IN
                SELECT DISTINCT CASE e.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END
                  FROM pg_class c
                 CROSS JOIN LATERAL aclexplode(c.relacl) e
                  LEFT JOIN pg_roles r ON r.oid = e.grantee
                 WHERE c.oid = format('@schema@.%I', partition)::regclass AND e.grantee <> c.relowner
                   AND (e.grantee = 0 OR r.rolname ~ '^jobq_(enqueuer|worker|viewer|operator|daemon)$')
            LOOP
                EXECUTE format('REVOKE ALL ON @schema@.%I FROM %s', partition, member);
            END LOOP;
            EXECUTE format('WITH moved AS (DELETE FROM @schema@.%I WHERE finished_at >= %L AND finished_at < %L RETURNING *) '
                           'INSERT INTO @schema@.%I SELECT * FROM moved',
                           parent || '_default', day::timestamptz, (day + 1)::timestamptz, partition);
            EXECUTE format('ALTER TABLE @schema@.%I ATTACH PARTITION @schema@.%I FOR VALUES FROM (%L) TO (%L)',
                           parent, partition, day::timestamptz, (day + 1)::timestamptz);
            made := made + 1;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            IF @schema@._is_passing(SQLSTATE) OR SQLSTATE = '55P03' THEN
                RAISE;
            END IF;
            RAISE WARNING 'partition % of the history cannot be made, its jobs go to the default partition: %', partition, left(SQLERRM, 1000)
                USING ERRCODE = '01JQ1';
        END;
    END LOOP;
    RETURN made;
END
$$;

-- Deletes rows of a partition that this transaction has locked; deleted: how many. Those that the database refuses to delete are
-- found by halving and left, the first of them named in a warning; so are, without a word, those whose deletion waits for a
-- lock (of rows that go with it, say): that is waited for once. At most 60 subtransactions succeed: more would slow
-- down the snapshots of all sessions. untried: some are left by then, for the next call.
CREATE FUNCTION @schema@._delete_apart(partition text, tids tid[], OUT deleted int, OUT untried boolean)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
#variable_conflict use_variable
DECLARE
    until timestamptz; -- since the first lock
    lows int[] := '{1}';
    highs int[] := ARRAY[cardinality(tids)];
    low int;
    high int;
    here bigint;
    used int := 0;
    told boolean := false;
    job text;
    text_of text;
BEGIN
    deleted := 0;
    untried := false;
    WHILE cardinality(lows) > 0 AND cardinality(tids) > 0 LOOP
        IF used >= 60 OR clock_timestamp() > until THEN
            untried := true;
            EXIT;
        END IF;
        low := lows[cardinality(lows)];
        high := highs[cardinality(highs)];
        lows := lows[1 : cardinality(lows) - 1];
        highs := highs[1 : cardinality(highs) - 1];
        BEGIN
            EXECUTE format('DELETE FROM @schema@.%I WHERE ctid = ANY ($1)', partition) USING tids[low : high];
            GET DIAGNOSTICS here = ROW_COUNT;
            SET CONSTRAINTS ALL IMMEDIATE;
            IF here <= high - low THEN -- or they have gone meanwhile, along with others
                EXECUTE format('SELECT count(*) FROM @schema@.%I WHERE ctid = ANY ($1)', partition) INTO here USING tids[low : high];
                IF here > 0 THEN
                    RAISE EXCEPTION 'a trigger or rule keeps its row from being deleted'
                        USING ERRCODE = 'triggered_action_exception';
                END IF;
            END IF;
            deleted := deleted + high - low + 1;
            used := used + 1;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            IF @schema@._is_passing(SQLSTATE) THEN
                RAISE;
            END IF;
            IF SQLSTATE = '55P03' AND until IS NULL THEN
                until := clock_timestamp() + interval '500 ms';
                PERFORM set_config('lock_timeout', '1ms', true);
            END IF;
            IF low < high THEN
                lows := lows || ARRAY[low + (high - low) / 2 + 1, low];
                highs := highs || ARRAY[high, low + (high - low) / 2];
            ELSIF NOT told AND SQLSTATE <> '55P03' THEN
                text_of := left(SQLERRM, 1000);
                EXECUTE format('SELECT coalesce(to_jsonb(t) ->> ''id'', to_jsonb(t) ->> ''job_id'') FROM @schema@.%I t '
                               'WHERE t.ctid = $1', partition) INTO job USING tids[low];
                RAISE WARNING 'job %: the database refuses to delete its row from %: %', job, partition, text_of
                    USING ERRCODE = '01JQ1';
                told := true;
            END IF;
        END;
    END LOOP;
END
$$;

-- Drops the oldest partition that ended before its keep, or, when there is none, deletes up to 10,000 rows that old
-- from the default partitions. One that cannot be dropped, since something of the application's depends on it, is named in a
-- warning, and the next one is dropped; so are rows that cannot be deleted. One that another session reads (a dump) is left.
-- Returns 1 when there is more to do, in another transaction: a DROP locks the parent until the commit; -1 when something was
-- locked, for which it is to be called again later; else 0. SECURITY DEFINER, as above.
CREATE OR REPLACE FUNCTION @schema@.drop_partitions(keep_completed interval, keep_failed interval) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO'
SET lock_timeout = '200ms' AS $$
#variable_conflict use_variable
DECLARE
    batch CONSTANT int := 10000;
    old_partitions text[];
    parent text;
    oldest_kept timestamptz;
    gone record;
    more boolean := false;
    locked boolean := false;
    partition text;
    old_rows tid[];
BEGIN
    IF keep_completed IS NULL OR keep_completed < interval '0' THEN
        RAISE EXCEPTION 'jobq.drop_partitions: keep_completed must be an interval of 0 or more, got %',
            coalesce(keep_completed::text, 'null') USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF keep_failed IS NULL OR keep_failed < interval '0' THEN
        RAISE EXCEPTION 'jobq.drop_partitions: keep_failed must be an interval of 0 or more, got %',
            coalesce(keep_failed::text, 'null') USING ERRCODE = 'invalid_parameter_value';
    END IF;

    old_partitions := ARRAY(
        SELECT c.relname
          FROM pg_inherits i
          JOIN pg_class c ON c.oid = i.inhrelid
          JOIN (VALUES ('@schema@.finished_completed'::regclass, now() - keep_completed),
                       ('@schema@.finished_failed'::regclass, now() - keep_failed)) AS k (parent, oldest_kept)
            ON k.parent = i.inhparent
         WHERE c.relname ~ '^finished_(completed|failed)_p[0-9]{8}$'
           AND to_date(right(c.relname, 8), 'YYYYMMDD') + 1 <= k.oldest_kept
         ORDER BY right(c.relname, 8), c.relname);
    FOREACH partition IN ARRAY old_partitions LOOP
        BEGIN
            EXECUTE format('DROP TABLE @schema@.%I', partition);
            RETURN CASE WHEN partition <> old_partitions[cardinality(old_partitions)] THEN 1 WHEN locked THEN -1 ELSE 0 END;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            IF @schema@._is_passing(SQLSTATE) THEN
                RAISE;
            END IF;
            IF SQLSTATE = '55P03' THEN
                locked := true;
                PERFORM set_config('lock_timeout', '1ms', true); -- once is patience enough
            ELSE
                RAISE WARNING 'partition % of the history is out of its time, but cannot be dropped: %', partition, left(SQLERRM, 1000)
                    USING ERRCODE = '01JQ1';
            END IF;
        END;
    END LOOP;

    FOR parent, oldest_kept IN
        SELECT k.parent, k.oldest_kept
          FROM (VALUES ('finished_completed', now() - keep_completed),
                       ('finished_failed', now() - keep_failed)) AS k (parent, oldest_kept)
    LOOP
        BEGIN
            EXECUTE format('SELECT ARRAY(SELECT f.ctid FROM @schema@.%I f WHERE f.finished_at < $1 LIMIT $2 '
                           'FOR UPDATE SKIP LOCKED)', parent || '_default') INTO old_rows USING oldest_kept, batch;
        EXCEPTION WHEN lock_not_available THEN
            locked := true;
            CONTINUE;
        END;
        gone := @schema@._delete_apart(parent || '_default', old_rows);
        more := more OR gone.deleted > 0 AND (gone.untried OR cardinality(old_rows) = batch);
    END LOOP;
    RETURN CASE WHEN more THEN 1 WHEN locked THEN -1 ELSE 0 END;
END
$$;

-- Each partition of the history that is there (0001).
DO $$
DECLARE
    part regclass;
BEGIN
    FOR part IN SELECT t.relid FROM pg_catalog.pg_partition_tree('@schema@.finished_jobs') t
                  JOIN pg_catalog.pg_class c ON c.oid = t.relid WHERE c.relreplident <> 'f' LOOP
        EXECUTE pg_catalog.format('ALTER TABLE %s REPLICA IDENTITY FULL', part);
    END LOOP;
END
$$;

-- ---- more ways to end ----

-- A job that has not begun its first attempt by then is cancelled. A claim never hands one out after that time; the leader
-- sweeps them up. No column that a claim changes is in the index.
ALTER TABLE @schema@.jobs ADD COLUMN expires_at timestamptz;
CREATE INDEX jobs_expires ON @schema@.jobs (expires_at) WHERE expires_at IS NOT NULL;
ALTER TABLE @schema@.finished_jobs ADD COLUMN expires_at timestamptz;

-- The running job is to be ended and forgotten (jobq.delete): whoever settles it keeps no history of it.
ALTER TABLE @schema@.cancels ADD COLUMN forget boolean NOT NULL DEFAULT false;

CREATE OR REPLACE VIEW @schema@.all_jobs AS
    SELECT id, state, queue, kind, args, meta, tags, priority, position, attempt, max_attempts, errors,
           key, unique_key, timeout_ms, inserted_at, scheduled_at, attempted_at, attempted_by,
           NULL::timestamptz AS finished_at, NULL::jsonb AS result,
           NULL::bigint AS run_us, NULL::bigint AS cpu_us, NULL::bigint AS max_rss_kb, expires_at
      FROM @schema@.jobs
    UNION ALL
    SELECT id, state, queue, kind, args, meta, tags, priority, position, attempt, max_attempts, errors,
           key, unique_key, timeout_ms, inserted_at, scheduled_at, attempted_at, attempted_by,
           finished_at, result, run_us, cpu_us, max_rss_kb, expires_at
      FROM @schema@.finished_jobs;

-- As before, with expires_at.
CREATE OR REPLACE FUNCTION @schema@.cancel_live(id bigint) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    running record;
BEGIN
    FOR turn IN 1 .. 100 LOOP
        WITH gone AS (
            DELETE FROM @schema@.jobs
             WHERE id = cancel_live.id AND state IN ('scheduled', 'available', 'retryable', 'suspended')
            RETURNING *)
        INSERT INTO @schema@.finished_jobs (id, inserted_at, scheduled_at, attempted_at, attempted_by, finished_at,
               state, attempt, max_attempts, timeout_ms, priority, queue, kind, args, meta, tags, errors, key,
               unique_key, expires_at)
        SELECT id, inserted_at, scheduled_at, attempted_at, attempted_by, clock_timestamp(),
               'cancelled', attempt, max_attempts, timeout_ms, priority, queue, kind, args, meta, tags, errors, key,
               unique_key, expires_at
          FROM gone;
        IF FOUND THEN
            RETURN 'cancelled';
        END IF;

        SELECT j.attempt, j.attempted_by, j.state INTO running FROM @schema@.jobs j WHERE j.id = cancel_live.id;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
        IF running.state = 'executing' THEN
            -- DO NOTHING: an earlier request's row must not be locked, the settling of the job would wait for us.
            INSERT INTO @schema@.cancels (job_id, attempt, node_id)
            VALUES (cancel_live.id, running.attempt, coalesce(running.attempted_by, 0)) ON CONFLICT DO NOTHING;
            PERFORM @schema@._notify('cancel');
            RETURN 'asked';
        END IF;
        -- Its attempt has ended between the two statements: it waits now.
    END LOOP;
    RAISE EXCEPTION 'job % cannot be cancelled: a trigger or rule on jobs keeps its row from being deleted', cancel_live.id
        USING ERRCODE = 'triggered_action_exception';
END
$$;

-- As before; an expiry that has passed is forgotten: whoever retries a job wants it to run.
CREATE OR REPLACE FUNCTION @schema@.retry(id bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    old @schema@.finished_jobs;
    of_queue text;
    fault text;
BEGIN
    UPDATE @schema@.jobs
       SET state = 'available', position = @schema@.next_position(), scheduled_at = now(),
           retried_attempt = attempt, expires_at = CASE WHEN expires_at > now() THEN expires_at END
     WHERE id = retry.id AND state IN ('scheduled', 'retryable')
    RETURNING queue INTO of_queue;
    IF FOUND THEN
        DELETE FROM @schema@.cancels WHERE job_id = retry.id;
        PERFORM @schema@.wake(ARRAY[of_queue]);
        RETURN true;
    END IF;

    DELETE FROM @schema@.finished_jobs WHERE id = retry.id RETURNING * INTO old;
    IF NOT FOUND THEN
        PERFORM @schema@.state_of('retry', retry.id);
        RETURN false;
    END IF;
    -- An attempt's number is never used twice (it fences the acks), so it cannot be set back either.
    IF old.attempt >= 1000 THEN
        RAISE EXCEPTION 'jobq.retry: job % has used all 1000 attempts; enqueue it as a new job', retry.id
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    -- What is there may be from before a limit, or written by hand.
    fault := @schema@.job_fault(old.kind, old.args, old.queue, old.priority::int, NULL, old.max_attempts, old.key,
                                old.unique_key, old.tags, old.meta, old.timeout_ms);
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION 'jobq.retry: job % cannot run again: %', retry.id, fault
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    DELETE FROM @schema@.cancels WHERE job_id = retry.id;
    -- The insert's trigger wakes the nodes.
    INSERT INTO @schema@.jobs (id, inserted_at, attempted_at, attempted_by, attempt, max_attempts, timeout_ms,
                               priority, queue, kind, args, meta, tags, errors, key, unique_key,
                               retried_attempt, expires_at)
    VALUES (old.id, old.inserted_at, old.attempted_at, old.attempted_by, old.attempt,
            greatest(old.max_attempts, old.attempt + 1), old.timeout_ms, old.priority, old.queue, old.kind,
            old.args, old.meta, old.tags, @schema@._errors(old.errors), old.key, old.unique_key, old.attempt,
            CASE WHEN old.expires_at > now() THEN old.expires_at END)
    ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'jobq.retry: job % has the unique key %, which another live job holds', retry.id,
            to_json(old.unique_key) USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN true;
END
$$;

-- As before, with expires_at.
CREATE OR REPLACE FUNCTION @schema@.complete(id bigint, attempt int, result jsonb DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    now_state @schema@.job_state;
    now_attempt int;
    fault text;
BEGIN
    IF complete.attempt IS NULL OR complete.attempt < 1 THEN
        RAISE EXCEPTION 'jobq.complete: attempt must be 1 or more, got %', coalesce(complete.attempt::text, 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF complete.result IS NOT NULL THEN
        fault := @schema@._content_fault(complete.result, name => 'result');
    END IF;
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION 'jobq.complete: %', fault USING ERRCODE = 'invalid_parameter_value';
    END IF;
    WITH gone AS (
        DELETE FROM @schema@.jobs
         WHERE id = complete.id AND attempt = complete.attempt AND state = 'executing'
        RETURNING *)
    INSERT INTO @schema@.finished_jobs (id, inserted_at, scheduled_at, attempted_at, attempted_by, finished_at,
           run_us, state, attempt, max_attempts, timeout_ms, priority, queue, kind, args, meta, tags, errors, key,
           unique_key, expires_at, result)
    SELECT id, inserted_at, scheduled_at, attempted_at, attempted_by, clock_timestamp(),
           extract(epoch FROM clock_timestamp() - attempted_at) * 1000000, 'completed', attempt, max_attempts,
           timeout_ms, priority, queue, kind, args, meta, tags, errors, key, unique_key, expires_at, complete.result
      FROM gone;
    IF FOUND THEN
        RETURN;
    END IF;
    now_state := @schema@.state_of('complete', complete.id);
    IF now_state = 'executing' THEN
        SELECT attempt INTO now_attempt FROM @schema@.jobs WHERE id = complete.id;
    END IF;
    RAISE EXCEPTION 'jobq.complete: job % is not executing attempt %: it is %', complete.id, complete.attempt,
        now_state || coalesce(' attempt ' || now_attempt, '')
        USING ERRCODE = 'object_not_in_prerequisite_state';
END
$$;
