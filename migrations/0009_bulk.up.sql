-- jobq, migration 9: cancel, retry and delete many jobs at once; purge; how far running jobs are; wait; retention.

-- ---- which jobs: the filter ----

-- A value for an error's text.
CREATE FUNCTION @schema@.shown(got jsonb) RETURNS text LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT @schema@._shown(got, true)
$$;

-- A text, or an array of texts; null for anything else.
CREATE FUNCTION @schema@.texts_of(got jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE jsonb_typeof(got)
           WHEN 'string' THEN ARRAY[got #>> '{}']
           WHEN 'array' THEN CASE WHEN NOT jsonb_path_exists(got, 'strict $[*] ? (@.type() != "string")')
                                  THEN ARRAY(SELECT jsonb_array_elements_text(got)) END
           END
$$;

-- A whole number of min to max, or an array of such; null for anything else.
CREATE FUNCTION @schema@.numbers_of(got jsonb, min bigint, max bigint) RETURNS bigint[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN jsonb_path_exists(a.list, 'strict $[*] ? (@.type() != "number")') THEN NULL
                WHEN EXISTS (SELECT FROM jsonb_array_elements(a.list) e (n)
                              WHERE n::numeric NOT BETWEEN min AND max OR n::numeric <> trunc(n::numeric)) THEN NULL
                ELSE ARRAY(SELECT n::numeric::bigint FROM jsonb_array_elements(a.list) e (n)) END
      FROM (SELECT CASE WHEN jsonb_typeof(got) = 'array' THEN got ELSE jsonb_build_array(got) END AS list) a
$$;

-- A finite time; null for anything else.
CREATE FUNCTION @schema@.time_of(got jsonb) RETURNS timestamptz
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

-- A time as a literal's text, which means the same whatever DateStyle and TimeZone are.
CREATE FUNCTION @schema@.iso(at timestamptz) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT to_jsonb(at) #>> '{}'
$$;

-- Checks a filter, and says it as SQL upon a row j: of the live jobs, and of those that have ended. Every value is a
-- literal in it. still: what may have changed of a live job since it was found (not its id). most: its limit, or null;
-- by_id: it names few jobs, so that an index finds them.
CREATE FUNCTION @schema@.filter_sql(caller text, filter jsonb, OUT live text, OUT still text, OUT ended text,
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

-- ---- to wait without being waited for ----
--
-- The functions below have many rows in their hands. Who waited for a lock with them could be part of a deadlock, with an
-- enqueue_many that replaces, say. So they look whether a row is free, again and again, for as long as lock_timeout says,
-- or ten seconds; then it is an error, and nothing was changed. Only two locks are waited for: that of another session's
-- request to cancel, with nothing in hand, and that of a unique key, in the order of enqueue_many (bulk_ended).

CREATE FUNCTION @schema@.bulk_patience() RETURNS interval
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(nullif(s.setting::bigint, 0), 10000) * interval '1 millisecond'
      FROM pg_settings s WHERE s.name = 'lock_timeout'
$$;

-- Waits a moment, a longer one each time; an error when patience is at its end.
CREATE FUNCTION @schema@.bulk_pause(what text, INOUT waited interval, patience interval)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    pause CONSTANT interval := least(greatest(waited / 4, '1 ms'), '50 ms');
BEGIN
    IF waited >= patience THEN
        RAISE EXCEPTION 'jobq: % is locked by another session, for more than % s by now; nothing was changed', what,
            round(extract(epoch FROM patience)::numeric, 1) USING ERRCODE = 'lock_not_available';
    END IF;
    PERFORM pg_sleep(extract(epoch FROM pause));
    waited := waited + pause;
END
$$;

-- ---- live jobs ----

-- Cancels, deletes or retries those of `ids` that match and wait; returns how many. A batch of which some are locked is
-- rolled back, which lets go of its rows, and tried again in smaller ones: of the last size, until that row is free.
-- What runs by then is left out. skip: so is what is locked. A job that the database refuses to change is left out, and named
-- in a warning; after a hundred of them that is an error, and nothing was changed. house: it is not, and neither is a lock that
-- a change waits for (of rows that go with the job, say); what is left by then, after a second, is for the next call.
CREATE FUNCTION @schema@.bulk_waiting(act text, matches text, ids bigint[], skip boolean DEFAULT false,
    house boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    largest CONSTANT int := 16384;
    patience CONSTANT interval := @schema@.bulk_patience();
    waited interval := '0';
    size int := 4096;
    at int := 1;
    done bigint := 0;
    refused int := 0;
    used int := 0; -- house: more than 60 subtransactions slow down the snapshots of all sessions
    until CONSTANT timestamptz := clock_timestamp() + interval '1 second';
    statement text;
    locked bigint;
    seen bigint;
    written bigint;
BEGIN
    statement := format(
        'j.id = ANY ($1) AND (%s) AND j.state IN (%s)', matches,
        CASE act WHEN 'retry' THEN '''scheduled'', ''retryable'''
                 ELSE '''scheduled'', ''available'', ''retryable'', ''suspended''' END);
    statement := format(
        'WITH locked AS MATERIALIZED (SELECT j.id FROM @schema@.jobs j WHERE %1$s ORDER BY j.id FOR UPDATE SKIP LOCKED), %2$s '
        'SELECT (SELECT count(*) FROM locked), (SELECT count(*) FROM @schema@.jobs j WHERE %1$s), (SELECT count(*) FROM %4$s)%3$s',
        statement,
        CASE act
        WHEN 'cancel' THEN
            'gone AS (DELETE FROM @schema@.jobs j USING locked l WHERE j.id = ANY (ARRAY[l.id]) RETURNING j.*), '
            'kept AS (INSERT INTO @schema@.finished_jobs (id, inserted_at, scheduled_at, attempted_at, attempted_by, '
            'finished_at, state, attempt, max_attempts, timeout_ms, priority, queue, kind, args, meta, tags, errors, key, '
            'unique_key, expires_at) '
            'SELECT id, inserted_at, scheduled_at, attempted_at, attempted_by, clock_timestamp(), ''cancelled'', attempt, '
            'max_attempts, timeout_ms, priority, queue, kind, args, meta, tags, errors, key, unique_key, expires_at '
            'FROM gone)'
        WHEN 'delete' THEN
            'gone AS (DELETE FROM @schema@.jobs j USING locked l WHERE j.id = ANY (ARRAY[l.id]) RETURNING j.id), '
            'noted AS (DELETE FROM @schema@.progress p USING locked l WHERE p.job_id = ANY (ARRAY[l.id])), '
            'asked AS (DELETE FROM @schema@.cancels c WHERE c.ctid = ANY (ARRAY(SELECT d.ctid FROM @schema@.cancels d, locked l '
            'WHERE d.job_id = ANY (ARRAY[l.id]) FOR UPDATE OF d SKIP LOCKED)))'
        WHEN 'retry' THEN
            'again AS (UPDATE @schema@.jobs j SET state = ''available'', position = @schema@.next_position(), '
            'scheduled_at = now(), retried_attempt = attempt, '
            'expires_at = CASE WHEN expires_at > now() THEN expires_at END '
            'FROM locked l WHERE j.id = ANY (ARRAY[l.id]) RETURNING j.queue), '
            'asked AS (DELETE FROM @schema@.cancels c WHERE c.ctid = ANY (ARRAY(SELECT d.ctid FROM @schema@.cancels d, locked l '
            'WHERE d.job_id = ANY (ARRAY[l.id]) FOR UPDATE OF d SKIP LOCKED)))'
        END,
        CASE act WHEN 'retry' THEN ', (SELECT @schema@.wake(array_agg(DISTINCT a.queue)) FROM again a)' ELSE '' END,
        CASE act WHEN 'retry' THEN 'again' ELSE 'gone' END);
    WHILE at <= cardinality(ids) AND NOT (house AND (used >= 60 OR clock_timestamp() > until)) LOOP
        BEGIN
            EXECUTE statement INTO locked, seen, written USING ids[at : at + size - 1];
            IF written < locked THEN
                RAISE EXCEPTION 'a trigger or rule on jobs keeps its row from being changed'
                    USING ERRCODE = 'triggered_action_exception';
            END IF;
            IF locked < seen AND NOT skip THEN
                RAISE EXCEPTION 'some are in use' USING ERRCODE = 'JQ001';
            END IF;
            done := done + locked;
            used := used + 1;
            at := at + size;
            size := least(size * 4, largest);
        EXCEPTION
            WHEN SQLSTATE 'JQ001' THEN
                IF size = 1 THEN
                    waited := @schema@.bulk_pause('job ' || ids[at], waited, patience);
                END IF;
                size := greatest(size / 4, 1);
            WHEN OTHERS OR assert_failure THEN
                IF @schema@._is_passing(SQLSTATE) OR NOT house AND (SQLSTATE = '55P03' OR refused >= 100) THEN
                    RAISE;
                END IF;
                IF SQLSTATE = '55P03' THEN
                    PERFORM set_config('lock_timeout', '1ms', true); -- to cancel_again()'s end
                END IF;
                IF size = 1 THEN
                    IF SQLSTATE <> '55P03' AND refused < 100 THEN
                        RAISE WARNING 'job %: the database refused to % it: %', ids[at], act, left(SQLERRM, 1000) USING ERRCODE = '01JQ1';
                        refused := refused + 1;
                    END IF;
                    at := at + 1;
                END IF;
                size := greatest(size / 4, 1);
        END;
    END LOOP;
    RETURN done;
END
$$;

-- Asks for the end of those of `ids` that match and run; returns which these are. Their nodes hear of it. It waits for another
-- session's request for the same attempt, in the order of the ids. later: it does not, the requests are for a node that does
-- not exist (its number is the transaction's, so that nobody waits for another one's), and left to cancel_again(); they are
-- for those that wait, too. So is a request to forget a job that stands beside an earlier one that did not say so, whose
-- row must not be locked.
CREATE FUNCTION @schema@.bulk_ask(forget boolean, matches text, ids bigint[], later boolean DEFAULT false) RETURNS bigint[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    asked bigint[];
BEGIN
    EXECUTE format(
        'WITH rest AS MATERIALIZED (SELECT j.id, j.attempt, coalesce(j.attempted_by, 0) AS node FROM @schema@.jobs j '
        'WHERE j.id = ANY ($1) AND (%s) AND (j.state = ''executing'' OR $3)), '
        'fresh AS (INSERT INTO @schema@.cancels (job_id, attempt, node_id, forget) '
        'SELECT r.id, r.attempt, CASE WHEN $3 THEN -pg_current_xact_id()::text::bigint ELSE r.node END, $2 FROM rest r '
        'ORDER BY r.id ON CONFLICT DO NOTHING RETURNING job_id), '
        'more AS (INSERT INTO @schema@.cancels (job_id, attempt, node_id, forget) '
        'SELECT r.id, r.attempt, -pg_current_xact_id()::text::bigint, $2 FROM rest r '
        'WHERE $2 AND NOT EXISTS (SELECT FROM fresh f WHERE f.job_id = r.id) AND NOT EXISTS ('
        'SELECT FROM @schema@.cancels c WHERE c.job_id = r.id AND c.attempt = r.attempt AND c.forget) '
        'ORDER BY r.id ON CONFLICT DO NOTHING) '
        'SELECT array_agg(r.id) FROM rest r', matches)
       INTO asked USING ids, forget, later;
    IF asked IS NOT NULL AND NOT later THEN
        PERFORM @schema@._notify('cancel');
    END IF;
    RETURN coalesce(asked, '{}');
END
$$;

-- Ends those of `ids` that match: those that run are asked for, which comes first, the others are ended at once. Some may be
-- claimed between the two, or have ended an attempt: these are out of order, so nothing is waited for.
CREATE FUNCTION @schema@.bulk_end(forget boolean, matches text, ids bigint[], OUT n bigint, OUT asked bigint[])
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    act CONSTANT text := CASE WHEN forget THEN 'delete' ELSE 'cancel' END;
    rest bigint[];
BEGIN
    asked := @schema@.bulk_ask(forget, matches, ids);
    rest := ARRAY(SELECT unnest(ids) EXCEPT SELECT unnest(asked) ORDER BY 1);
    n := @schema@.bulk_waiting(act, matches, rest);
    IF n < cardinality(rest) THEN
        n := n + @schema@.bulk_waiting(act, matches, rest, true);
        asked := asked || @schema@.bulk_ask(forget, matches, rest, true);
    END IF;
    n := n + cardinality(asked);
END
$$;

-- ---- jobs that have ended ----

-- Of a job that has ended, as SQL upon a row j: whether it can run again. It may be from before a limit, or written by hand.
CREATE FUNCTION @schema@._retryable() RETURNS text LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'j.attempt BETWEEN 0 AND 999 AND j.id BETWEEN 1 AND 9007199254740991 AND '
           '@schema@.job_fault(j.kind, j.args, j.queue, j.priority::int, NULL, j.max_attempts, j.key, j.unique_key, j.tags, '
           'j.meta, j.timeout_ms, CASE WHEN j.expires_at > now() THEN j.expires_at END) IS NULL'
$$;

-- Deletes those that match, or makes them available again; returns their ids. locked: what becomes of those that are: wait
-- for them, fail (lock_not_available), or skip them. An attempt's number is never used twice, so
-- what has used all of them cannot be retried, and neither can one whose unique key a live job holds, or whose args are
-- more than a job may take: they stay. Unique
-- keys are taken in their order over all partitions, as enqueue_many takes them: an insert waits for who holds its key. So
-- no live job may be in our hands by then, and none is deleted before what has ended.
CREATE FUNCTION @schema@.bulk_ended_at_once(act text, matches text, most bigint, by_id boolean, locked text) RETURNS bigint[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = on
SET enable_bitmapscan = on SET enable_hashjoin = on
SET enable_mergejoin = on AS $$
#variable_conflict use_variable
DECLARE
    columns CONSTANT text := 'id, inserted_at, attempted_at, attempted_by, attempt, max_attempts, timeout_ms, priority, queue, '
                             'kind, args, meta, tags, errors, key, unique_key, expires_at';
    statement text;
    began CONSTANT timestamptz := clock_timestamp();
    waited interval := '0';
    parts text[];
    tids text[]; -- of each of these partitions' rows, an array's text
    pieces text;
    again bigint[];
    those bigint[];
    wanted int := 0;
    done bigint[] := '{}';
BEGIN
    IF by_id THEN
        PERFORM set_config('enable_seqscan', 'off', true); -- to the function's end
    ELSE
        PERFORM set_config('enable_bitmapscan', 'off', true); -- no BRIN index asked id by id
    END IF;
    statement := format(
        'SELECT array_agg(p.part), array_agg(p.tids), string_agg(format(''SELECT %%s FROM %%s WHERE ctid = ANY (($1[%%s])::tid[])'', '
        '%L, p.part, p.nth), '' UNION ALL '') '
        'FROM (SELECT t.part::text AS part, array_agg(t.ctid)::text AS tids, row_number() OVER (ORDER BY t.part) AS nth FROM ('
        'SELECT j.tableoid::regclass AS part, j.ctid, j.id FROM @schema@.finished_jobs j '
        'WHERE (%s)%s ORDER BY j.id LIMIT %s FOR UPDATE OF j %s) t GROUP BY t.part ORDER BY t.part) p',
        columns, matches, CASE act WHEN 'retry' THEN ' AND ' || @schema@._retryable() ELSE '' END, coalesce(most::text, 'ALL'),
        CASE locked WHEN 'skip' THEN 'SKIP LOCKED' ELSE 'NOWAIT' END);
    LOOP
        BEGIN
            EXECUTE statement INTO parts, tids, pieces;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            waited := @schema@.bulk_pause('a job that has ended', greatest(waited, clock_timestamp() - began),
                                          CASE locked WHEN 'fail' THEN '0' ELSE @schema@.bulk_patience() END);
        END;
    END LOOP;
    IF parts IS NULL THEN
        RETURN done;
    END IF;
    IF act = 'retry' THEN
        -- The insert's trigger wakes the nodes.
        EXECUTE format('WITH again AS (INSERT INTO @schema@.jobs (id, inserted_at, attempted_at, attempted_by, attempt, '
                       'max_attempts, timeout_ms, priority, queue, kind, args, meta, tags, errors, key, unique_key, '
                       'retried_attempt, expires_at) '
                       'SELECT id, inserted_at, attempted_at, attempted_by, attempt, greatest(max_attempts, attempt + 1), '
                       'timeout_ms, priority, queue, kind, args, meta, tags, @schema@._errors(errors), key, unique_key, attempt, '
                       'CASE WHEN expires_at > now() THEN expires_at END '
                       'FROM (%s) f ORDER BY unique_key NULLS FIRST, id ON CONFLICT DO NOTHING RETURNING id) '
                       'SELECT coalesce(array_agg(id), ''{}'') FROM again', pieces) INTO again USING tids;
    END IF;
    FOR nth IN 1 .. cardinality(parts) LOOP
        EXECUTE format('WITH gone AS (DELETE FROM %s j WHERE j.ctid = ANY ($1) %s RETURNING j.id), '
                       'noted AS (DELETE FROM @schema@.progress p USING gone g WHERE p.job_id = ANY (ARRAY[g.id])), '
                       'asked AS (DELETE FROM @schema@.cancels c WHERE c.ctid = ANY (ARRAY(SELECT d.ctid '
                       'FROM @schema@.cancels d, gone l WHERE d.job_id = ANY (ARRAY[l.id]) FOR UPDATE OF d SKIP LOCKED))) '
                       'SELECT array_agg(id) FROM gone', parts[nth],
                       CASE act WHEN 'retry' THEN 'AND j.id = ANY ($2)' ELSE '' END)
           INTO those USING tids[nth]::tid[], again;
        done := done || those;
        wanted := wanted + cardinality(tids[nth]::tid[]);
    END LOOP;
    IF cardinality(done) < (CASE act WHEN 'retry' THEN cardinality(again) ELSE wanted END) THEN
        RAISE EXCEPTION 'a trigger or rule on the history keeps its row from being deleted'
            USING ERRCODE = 'triggered_action_exception';
    END IF;
    RETURN done;
END
$$;

-- The same, where the database refuses to act upon some: these are left out, each named in a warning, and found by halving. After
-- a hundred of them that is an error, and nothing was changed. house: as with bulk_waiting.
CREATE FUNCTION @schema@.bulk_ended(act text, matches text, most bigint, by_id boolean, locked text DEFAULT 'wait',
    house boolean DEFAULT false) RETURNS bigint[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    ids bigint[];
    lows int[] := '{1}';
    highs int[];
    low int;
    high int;
    refused int := 0;
    used int := 0;
    until CONSTANT timestamptz := clock_timestamp() + interval '1 second';
    done bigint[] := '{}';
BEGIN
    -- Of two conditions on the id only one may go to the index (IS TRUE cannot): BRIN would be asked for each pair of ids.
    BEGIN
        RETURN @schema@.bulk_ended_at_once(act, matches, most, by_id, locked);
    EXCEPTION WHEN OTHERS OR assert_failure THEN
        IF @schema@._is_passing(SQLSTATE) OR NOT house AND SQLSTATE = '55P03' THEN
            RAISE;
        END IF;
        IF SQLSTATE = '55P03' THEN
            PERFORM set_config('lock_timeout', '1ms', true); -- to cancel_again()'s end
        END IF;
    END;
    EXECUTE format('SELECT ARRAY(SELECT j.id FROM @schema@.finished_jobs j WHERE (%s)%s ORDER BY j.id LIMIT %s)', matches,
                   CASE act WHEN 'retry' THEN ' AND j.attempt < 1000' ELSE '' END, coalesce(most::text, 'ALL')) INTO ids;
    highs := ARRAY[cardinality(ids)];
    WHILE cardinality(lows) > 0 AND cardinality(ids) > 0
          AND NOT (house AND (used >= 60 OR clock_timestamp() > until)) LOOP
        low := lows[cardinality(lows)];
        high := highs[cardinality(highs)];
        lows := lows[1 : cardinality(lows) - 1];
        highs := highs[1 : cardinality(highs) - 1];
        BEGIN
            done := done || @schema@.bulk_ended_at_once(
                act, format(CASE WHEN by_id THEN '(%s) AND (j.id = ANY (%L::bigint[])) IS TRUE'
                                 WHEN high - low < 200 THEN '(%s) IS TRUE AND j.id = ANY (%L::bigint[])'
                                 ELSE '(%s) AND j.id = ANY (%L::bigint[])' END, matches, ids[low : high]), NULL,
                by_id OR high - low < 200, locked);
            used := used + 1;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            IF @schema@._is_passing(SQLSTATE) OR NOT house AND (SQLSTATE = '55P03' OR refused >= 100) THEN
                RAISE;
            END IF;
            IF SQLSTATE = '55P03' THEN
                PERFORM set_config('lock_timeout', '1ms', true);
            END IF;
            IF low = high THEN
                IF SQLSTATE <> '55P03' AND refused < 100 THEN
                    RAISE WARNING 'job %: the database refused to % it: %', ids[low], act, left(SQLERRM, 1000) USING ERRCODE = '01JQ1';
                    refused := refused + 1;
                END IF;
            ELSE
                lows := lows || ARRAY[low + (high - low) / 2 + 1, low];
                highs := highs || ARRAY[high, low + (high - low) / 2];
            END IF;
        END;
    END LOOP;
    RETURN done;
END
$$;

-- Leaves those that match to cancel_again(), which deletes them; returns their ids.
CREATE FUNCTION @schema@.bulk_forget(matches text, by_id boolean) RETURNS bigint[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = on
SET enable_bitmapscan = on SET enable_hashjoin = on AS $$
#variable_conflict use_variable
DECLARE
    left_over bigint[];
BEGIN
    IF by_id THEN
        PERFORM set_config('enable_seqscan', 'off', true);
    ELSE
        PERFORM set_config('enable_bitmapscan', 'off', true); -- no BRIN index asked id by id
    END IF;
    EXECUTE format('WITH requests AS (INSERT INTO @schema@.cancels (job_id, attempt, node_id, forget) '
                   'SELECT j.id, j.attempt, -pg_current_xact_id()::text::bigint, true FROM @schema@.finished_jobs j WHERE %s '
                   'ON CONFLICT DO NOTHING RETURNING job_id) SELECT array_agg(job_id) FROM requests', matches) INTO left_over;
    RETURN coalesce(left_over, '{}');
END
$$;

-- ---- what is called ----

-- The ids of the live jobs that match, in order; with a limit also the last id that is to be acted upon, live or ended.
CREATE FUNCTION @schema@.bulk_find(live text, ended text, most bigint, by_id boolean, OUT ids bigint[], OUT last_id bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = on
SET enable_bitmapscan = on AS $$
#variable_conflict use_variable
BEGIN
    IF by_id THEN
        PERFORM set_config('enable_seqscan', 'off', true);
    ELSE
        PERFORM set_config('enable_bitmapscan', 'off', true); -- no BRIN index asked id by id
    END IF;
    IF most IS NULL THEN
        EXECUTE format('SELECT array_agg(j.id ORDER BY j.id) FROM @schema@.jobs j WHERE %s', live) INTO ids;
        RETURN;
    END IF;
    EXECUTE format('SELECT array_agg(t.id ORDER BY t.id) FILTER (WHERE t.live), max(t.id) FROM (SELECT * FROM ('
                   'SELECT j.id, true AS live FROM @schema@.jobs j WHERE %s UNION ALL '
                   'SELECT j.id, false FROM @schema@.finished_jobs j WHERE %s) a ORDER BY a.id LIMIT %s) t',
                   live, ended, most) INTO ids, last_id;
END
$$;

-- Cancels the live jobs that the filter names: returns how many, those included that run and are asked to stop.
CREATE FUNCTION @schema@.cancel_many(filter jsonb) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    f record;
BEGIN
    f := @schema@.filter_sql('cancel_many', cancel_many.filter);
    RETURN e.n FROM @schema@.bulk_find(f.live, 'false', f.most, f.by_id) b, @schema@.bulk_end(false, f.still, b.ids) e;
END
$$;

-- Makes jobs available again as jobq.retry does: those that have ended, and those that wait for their time. Returns how
-- many. Left as they are: jobs that are available, suspended or run, those that have used all 1000 attempts, those whose
-- unique key a live job holds, and those that no new job may be like.
CREATE FUNCTION @schema@.retry_many(filter jsonb) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    f record;
    found record;
    most_ended bigint;
    again bigint[];
BEGIN
    f := @schema@.filter_sql('retry_many', retry_many.filter);
    SELECT * INTO found
      FROM @schema@.bulk_find('(' || f.live || ') AND j.state IN (''scheduled'', ''retryable'')',
                              '(' || f.ended || ') AND ' || @schema@._retryable(), f.most, f.by_id);
    -- Those that have ended come first: they may wait for a unique key, and then no live job is in our hands.
    most_ended := f.most - coalesce(cardinality(found.ids), 0);
    again := @schema@.bulk_ended('retry',
        f.ended || CASE WHEN f.most IS NULL THEN '' ELSE ' AND j.id <= ' || coalesce(found.last_id, 0) END, most_ended, f.by_id);
    RETURN cardinality(again) + @schema@.bulk_waiting('retry', f.still, found.ids);
END
$$;

-- The work of delete_many and purge.
CREATE FUNCTION @schema@.bulk_delete(caller text, filter jsonb) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    f record;
    found record;
    live record;
    bound text;
    gone bigint[];
    rest bigint[];
BEGIN
    f := @schema@.filter_sql(caller, filter);
    found := @schema@.bulk_find(f.live, f.ended, f.most, f.by_id);
    bound := CASE WHEN f.most IS NULL THEN '' ELSE ' AND j.id <= ' || coalesce(found.last_id, 0) END;
    gone := @schema@.bulk_ended('delete', f.ended || bound, f.most - coalesce(cardinality(found.ids), 0), f.by_id);
    IF f.most IS NULL THEN -- one of them may just have been retried
        found.ids := ARRAY(SELECT unnest(found.ids) UNION SELECT unnest((@schema@.bulk_find(f.live, 'false', NULL, f.by_id)).ids)
                            ORDER BY 1);
    END IF;
    live := @schema@.bulk_end(true, f.still, found.ids);
    IF live.n < cardinality(found.ids) THEN -- some have ended meanwhile; those that are locked are forgotten later
        rest := ARRAY(SELECT unnest(found.ids) EXCEPT SELECT unnest(live.asked));
        f.ended := format('(%s) IS TRUE AND j.id = ANY (%L::bigint[])', f.ended, rest);
        f.by_id := cardinality(rest) <= 200;
        gone := gone || @schema@.bulk_ended('delete', f.ended, NULL, f.by_id, 'skip');
        gone := gone || @schema@.bulk_forget(f.ended, f.by_id);
    END IF;
    RETURN cardinality(gone) + live.n;
END
$$;

-- Deletes jobs, live and ended: they leave no trace. Returns how many, those included that run: these are told to stop and
-- are forgotten when they have ended, however that was.
CREATE FUNCTION @schema@.delete_many(filter jsonb) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
    RETURN @schema@.bulk_delete('delete_many', delete_many.filter);
END
$$;

-- Deletes a user's data: each job, live or ended, whose args contain these, as delete_many does. Reads both tables through,
-- unless there is an index for it: CREATE INDEX ON ... USING gin (args jsonb_path_ops).
CREATE FUNCTION @schema@.purge(args jsonb, kind text DEFAULT NULL, queue text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
    IF purge.args IS NULL OR jsonb_typeof(purge.args) <> 'object' OR purge.args = '{}' THEN
        RAISE EXCEPTION 'jobq.purge: args must be a JSON object with one member or more, got %', @schema@.shown(purge.args)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN @schema@.bulk_delete('purge', jsonb_strip_nulls(jsonb_build_object('kind', purge.kind, 'queue', purge.queue))
                                         || jsonb_build_object('args', purge.args));
END
$$;

-- Deletes one job, live or ended. True: it is gone. False: it runs; it is told to stop, and leaves no trace either.
CREATE FUNCTION @schema@.delete(id bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    live record;
BEGIN
    IF delete.id IS NOT NULL THEN
        FOR turn IN 1 .. 100 LOOP
            live := @schema@.bulk_end(true, 'true', ARRAY[delete.id]);
            IF live.n > 0 THEN
                RETURN cardinality(live.asked) = 0;
            END IF;
            IF cardinality(@schema@.bulk_ended_at_once('delete', 'j.id = ' || delete.id, NULL, true, 'wait')) > 0 THEN
                RETURN true;
            END IF;
            PERFORM @schema@.state_of('delete', delete.id); -- it has just been retried, or
            DELETE FROM @schema@.jobs j -- the database refuses, and says why here
             WHERE j.id = delete.id AND j.state IN ('scheduled', 'available', 'retryable', 'suspended');
            IF FOUND THEN
                RETURN true;
            END IF;
        END LOOP;
        RAISE EXCEPTION 'jobq.delete: job % cannot be deleted: a trigger or rule keeps its row', delete.id
            USING ERRCODE = 'triggered_action_exception';
    END IF;
    PERFORM @schema@.state_of('delete', NULL);
END
$$;

-- Asks for the end of what runs, though it was asked for before, of an attempt that has ended.
CREATE FUNCTION @schema@.cancel_anew(forget boolean, ids bigint[]) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
    IF cancel_anew.forget THEN
        UPDATE @schema@.cancels c SET forget = true
          FROM @schema@.jobs j
         WHERE c.job_id = ANY (ids) AND NOT c.forget AND j.id = ANY (ARRAY[c.job_id]) AND j.state = 'executing'
           AND j.attempt = c.attempt AND j.attempted_by = c.node_id;
    END IF;
    RETURN cardinality(@schema@.bulk_ask(cancel_anew.forget, 'true', ids));
END
$$;

-- The ids of the ended jobs that match; by_id: these are few. Its own settings, so that many are not looked up one by one.
CREATE FUNCTION @schema@._ended_ids(matches text, by_id boolean) RETURNS bigint[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = on
SET enable_bitmapscan = on SET enable_hashjoin = on AS $$
#variable_conflict use_variable
DECLARE
    ids bigint[];
BEGIN
    IF by_id THEN
        PERFORM set_config('enable_seqscan', 'off', true);
    ELSE
        PERFORM set_config('enable_bitmapscan', 'off', true); -- no BRIN index asked id by id
    END IF;
    EXECUTE format('SELECT ARRAY(SELECT j.id FROM @schema@.finished_jobs j WHERE %s)', matches) INTO ids;
    RETURN ids;
END
$$;

-- Housekeeping, as before; and: a job that is to be forgotten is, when it has ended before its node heard of the request, or
-- waits again; a second request to forget a job that runs is noted upon the first. The node that keeps house waits for no
-- client: where a job, or a request, is locked, or the database refuses what it asks for, the request stays for the next time,
-- and stops no other. Each time it begins somewhere else among them.
CREATE OR REPLACE FUNCTION @schema@.cancel_again() RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET lock_timeout = '200ms' AS $$
#variable_conflict use_variable
DECLARE
    requests tid[];
    their_jobs bigint[];
    ended bigint[]; -- and to be forgotten
    since timestamptz;
    waiting bigint[];
    running bigint[];
    job bigint;
    at int;
    matches text;
    seen bigint[]; -- in the history
    kept bigint[] := '{}';
    again int := 0;
BEGIN
    SET CONSTRAINTS ALL IMMEDIATE; -- what the commit would refuse is refused at its row
    FOR i IN 0 .. 1 LOOP -- those to cancel, those to forget
        WITH stale AS MATERIALIZED (
            SELECT r.ctid AS request, r.job_id, r.requested_at, j.state
              FROM @schema@.cancels r
              LEFT JOIN @schema@.jobs j ON j.id = ANY (ARRAY[r.job_id])
             WHERE r.forget = (i = 1) AND NOT r.job_id = ANY (kept)
                   AND (j.id IS NULL OR j.state <> 'executing' OR j.attempt <> r.attempt
                        OR coalesce(j.attempted_by, 0) <> r.node_id)
             LIMIT 10000
               FOR UPDATE OF r SKIP LOCKED)
        SELECT array_agg(t.request), array_agg(t.job_id), array_agg(DISTINCT t.job_id) FILTER (WHERE t.state IS NULL),
               min(t.requested_at) FILTER (WHERE t.state IS NULL),
               array_agg(DISTINCT t.job_id) FILTER (WHERE t.state <> 'executing'),
               array_agg(DISTINCT t.job_id) FILTER (WHERE t.state = 'executing')
          INTO requests, their_jobs, ended, since, waiting, running
          FROM stale t;
        CONTINUE WHEN requests IS NULL;
        IF waiting IS NOT NULL THEN
            at := random() * cardinality(waiting);
            again := again + @schema@.bulk_waiting(CASE i WHEN 1 THEN 'delete' ELSE 'cancel' END, 'true',
                                                   waiting[at + 1 :] || waiting[: at], true, true);
            kept := kept || ARRAY(SELECT j.id FROM @schema@.jobs j WHERE j.id = ANY (waiting));
        END IF;
        BEGIN
            again := again + @schema@.cancel_anew(i = 1, running);
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            IF @schema@._is_passing(SQLSTATE) THEN
                RAISE;
            END IF;
            -- One by one, but few: more than 64 subtransactions in one transaction slow down everybody's snapshots.
            PERFORM set_config('lock_timeout', '1ms', true);
            at := random() * cardinality(running);
            running := running[at + 1 :] || running[: at];
            kept := kept || running[31 :];
            FOREACH job IN ARRAY running[1 : 30] LOOP
                BEGIN
                    again := again + @schema@.cancel_anew(i = 1, ARRAY[job]);
                EXCEPTION WHEN OTHERS OR assert_failure THEN
                    IF @schema@._is_passing(SQLSTATE) THEN
                        RAISE;
                    END IF;
                    IF SQLSTATE <> '55P03' THEN
                        RAISE WARNING 'job %: the database refused a request to cancel it: %', job, left(SQLERRM, 1000)
                            USING ERRCODE = '01JQ1';
                    END IF;
                    kept := kept || job;
                END;
            END LOOP;
        END;
        IF i = 1 AND ended IS NOT NULL THEN
            -- They ended after they were asked for; an hour for a clock that was set.
            matches := format('j.id = ANY (%L::bigint[]) AND j.finished_at > %L::timestamptz', ended,
                              @schema@.iso(since - interval '1 hour'));
            seen := @schema@._ended_ids(matches, cardinality(ended) <= 200);
            seen := ARRAY(SELECT unnest(seen) EXCEPT
                          SELECT unnest(@schema@.bulk_ended('delete', matches, NULL, cardinality(ended) <= 200, 'skip', true)));
            kept := kept || seen;
        END IF;
        PERFORM @schema@._delete_apart('cancels', ARRAY(SELECT u.request FROM unnest(requests, their_jobs) u (request, job_id)
                                                         WHERE NOT u.job_id = ANY (kept)));
    END LOOP;
    RETURN again;
END
$$;

-- ---- how far running jobs are ----

-- What the attempt that runs has said last of how far it is: written by its node, twice a second at most. Logged, though
-- nobody misses it after a crash, so that a replica can be asked about jobs: it could not read an unlogged table.
CREATE TABLE @schema@.progress (
    job_id  bigint PRIMARY KEY,
    attempt int NOT NULL,
    done    double precision NOT NULL,
    note    text,
    at      timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- What node $1 has to say of attempts that it runs. done is in millionths.
--
-- The lease is renewed on the same connection: so no lock is waited for longer than a moment. Where the database refuses all
-- together, the guilty ones are found by halving, and left out: the job says more soon. So is what is left after a third of
-- a second, or after 60 subtransactions, which are not always the same ones.
CREATE FUNCTION @schema@.note_progress(node bigint, ids bigint[], attempts int[], done bigint[], notes text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET lock_timeout = '50ms' AS $$
#variable_conflict use_column
DECLARE
    until CONSTANT timestamptz := clock_timestamp() + interval '300 ms';
    lows int[] := '{1}';
    highs int[] := ARRAY[cardinality(ids)];
    low int;
    middle int;
    high int;
    used int := 0;
BEGIN
    WHILE cardinality(lows) > 0 AND cardinality(ids) > 0 AND used < 60 AND clock_timestamp() < until LOOP
        low := lows[cardinality(lows)];
        high := highs[cardinality(highs)];
        lows := lows[1 : cardinality(lows) - 1];
        highs := highs[1 : cardinality(highs) - 1];
        BEGIN
            INSERT INTO @schema@.progress (job_id, attempt, done, note, at)
            SELECT u.id, u.attempt, u.done / 1000000.0, u.note, clock_timestamp()
              FROM unnest(ids[low : high], attempts[low : high], note_progress.done[low : high], notes[low : high])
                       u (id, attempt, done, note)
              JOIN @schema@.jobs j
                ON j.id = ANY (ARRAY[u.id]) AND j.attempt = u.attempt AND j.attempted_by = note_progress.node AND j.state = 'executing'
             ORDER BY u.id
                ON CONFLICT (job_id) DO UPDATE
               SET attempt = excluded.attempt, done = excluded.done, note = excluded.note, at = excluded.at;
            SET CONSTRAINTS ALL IMMEDIATE;
            used := used + 1;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            IF @schema@._is_passing(SQLSTATE) THEN
                RAISE;
            END IF;
            IF SQLSTATE = '55P03' THEN
                PERFORM set_config('lock_timeout', '1ms', true);
            END IF;
            IF low < high THEN
                middle := low + (high - low) / 2;
                IF random() < 0.5 THEN
                    lows := lows || ARRAY[middle + 1, low];
                    highs := highs || ARRAY[high, middle];
                ELSE
                    lows := lows || ARRAY[low, middle + 1];
                    highs := highs || ARRAY[middle, high];
                END IF;
            ELSIF SQLSTATE <> '55P03' THEN
                RAISE WARNING 'job %: the database refuses to write its progress: %', ids[low], left(SQLERRM, 1000) USING ERRCODE = '01JQ1';
            END IF;
        END;
    END LOOP;
END
$$;

-- Housekeeping: what was said by attempts that have ended.
CREATE FUNCTION @schema@.sweep_progress() RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off AS $$
#variable_conflict use_variable
BEGIN
    RETURN d.deleted FROM @schema@._delete_apart('progress', ARRAY(
        SELECT p.ctid FROM @schema@.progress p
         WHERE NOT EXISTS (SELECT FROM @schema@.jobs j
                            WHERE j.id = ANY (ARRAY[p.job_id]) AND j.attempt = p.attempt AND j.state = 'executing')
           FOR UPDATE OF p SKIP LOCKED)) d;
END
$$;

-- As before, with the progress of the attempt that runs. Who does not select it does not pay for it.
CREATE OR REPLACE VIEW @schema@.all_jobs AS
    SELECT id, state, queue, kind, args, meta, tags, priority, position, attempt, max_attempts, errors,
           key, unique_key, timeout_ms, inserted_at, scheduled_at, attempted_at, attempted_by,
           NULL::timestamptz AS finished_at, NULL::jsonb AS result,
           NULL::bigint AS run_us, NULL::bigint AS cpu_us, NULL::bigint AS max_rss_kb, expires_at,
           (SELECT jsonb_build_object('done', p.done, 'note', p.note, 'at', p.at)
              FROM @schema@.progress p
             WHERE p.job_id = j.id AND p.attempt = j.attempt AND j.state = 'executing') AS progress
      FROM @schema@.jobs j
    UNION ALL
    SELECT id, state, queue, kind, args, meta, tags, priority, position, attempt, max_attempts, errors,
           key, unique_key, timeout_ms, inserted_at, scheduled_at, attempted_at, attempted_by,
           finished_at, result, run_us, cpu_us, max_rss_kb, expires_at, NULL::jsonb
      FROM @schema@.finished_jobs;

-- ---- retention ----
--
-- Days' partitions are dropped whole (0003). What has to go sooner is deleted from them: by state, and by queue. Rows of
-- a day come to an end with it, so a partition of a past day out of which a rule has taken all that it ever will
-- is not read again: `pruned` says so. The others are read through by the page, some pages a call.

CREATE TABLE @schema@.pruned (
    partition text NOT NULL,
    rule      text NOT NULL,
    PRIMARY KEY (partition, rule)
);

-- How far the round has come that is under way: one row. Who has it locked is at it.
CREATE TABLE @schema@.pruning (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    policy    jsonb NOT NULL,
    rules     jsonb NOT NULL DEFAULT '[]',  -- rule, queue (null: every one), states, at, id: what is before these two goes
    todo      text[] NOT NULL DEFAULT '{}', -- partitions; the first one is under way ...
    next_page bigint NOT NULL DEFAULT 0,    -- ... from this page on
    left_some boolean NOT NULL DEFAULT false -- ... and not all that is to go has gone: some is locked, or refused
);

-- What the living nodes say of their queues' retention. Where they differ the longest and the most count; a node that
-- sets nothing keeps all.
CREATE FUNCTION @schema@.queues_retention() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_object_agg(q.queue, q.rule), '{}')
      FROM (SELECT s.key AS queue, jsonb_strip_nulls(jsonb_build_object(
                       'completed_ms', CASE WHEN bool_and(coalesce(s.value -> 'keep' ? 'completed_ms', false))
                                            THEN max((s.value -> 'keep' ->> 'completed_ms')::bigint) END,
                       'failed_ms', CASE WHEN bool_and(coalesce(s.value -> 'keep' ? 'failed_ms', false))
                                         THEN max((s.value -> 'keep' ->> 'failed_ms')::bigint) END,
                       'count', CASE WHEN bool_and(coalesce(s.value -> 'keep' ? 'count', false))
                                     THEN max((s.value -> 'keep' ->> 'count')::bigint) END)) AS rule
              FROM @schema@.nodes n
             CROSS JOIN LATERAL jsonb_each(CASE WHEN jsonb_typeof(n.queues) = 'object' THEN n.queues ELSE '{}' END) s
             WHERE n.expires_at > clock_timestamp()
             GROUP BY s.key) q
     WHERE q.rule <> '{}'
$$;

-- The history's partitions, with the times that they may hold.
CREATE FUNCTION @schema@.history_parts(OUT name text, OUT completed boolean, OUT low timestamptz, OUT high timestamptz)
RETURNS SETOF record LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.relname, i.inhparent = '@schema@.finished_completed'::regclass,
           CASE WHEN d.day IS NULL THEN '-infinity' ELSE d.day AT TIME ZONE 'UTC' END,
           CASE WHEN d.day IS NULL THEN 'infinity' ELSE (d.day + interval '1 day') AT TIME ZONE 'UTC' END
      FROM pg_inherits i
      JOIN pg_class c ON c.oid = i.inhrelid
     CROSS JOIN LATERAL (SELECT CASE WHEN c.relname ~ '_p[0-9]{8}$'
                                     THEN to_date(right(c.relname, 8), 'YYYYMMDD')::timestamp END AS day) d
     WHERE i.inhparent IN ('@schema@.finished_completed'::regclass, '@schema@.finished_failed'::regclass)
$$;

-- The end of the newest `n` jobs of a queue: the last of them. Reads the newest days alone, as many as it takes.
CREATE FUNCTION @schema@.newest_end(queue text, n bigint, OUT at timestamptz, OUT id bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    bounds timestamptz[] := ARRAY(SELECT DISTINCT b FROM @schema@.history_parts() p, unnest(ARRAY[p.low, p.high]) b ORDER BY b DESC);
    rest bigint := n;
    here bigint;
    slice text;
BEGIN
    FOR i IN 1 .. cardinality(bounds) - 1 LOOP
        slice := format('FROM @schema@.finished_jobs j WHERE j.queue = %L AND j.finished_at >= %L AND j.finished_at < %L',
                        queue, @schema@.iso(bounds[i + 1]), @schema@.iso(bounds[i]));
        EXECUTE 'SELECT count(*) ' || slice INTO here;
        IF here >= rest THEN
            EXECUTE format('SELECT j.finished_at, j.id %s ORDER BY j.finished_at DESC, j.id DESC OFFSET %s LIMIT 1', slice, rest - 1)
               INTO at, id;
            RETURN;
        END IF;
        rest := rest - here;
    END LOOP;
END
$$;

-- A policy as rules: {"cancelled_ms", "discarded_ms", "queues": {NAME: {"completed_ms", "failed_ms", "count"}}}, each of
-- which may be absent.
CREATE FUNCTION @schema@.prune_rules(policy jsonb) RETURNS jsonb
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    WITH q AS (
        SELECT e.key AS queue, e.value AS rule FROM jsonb_each(coalesce(policy -> 'queues', '{}')) e
    ), r AS (
        SELECT 'state ' || s.state AS rule, NULL::text AS queue, ARRAY[s.state] AS states,
               now() - (policy ->> (s.state || '_ms'))::bigint * interval '1 millisecond' AS at, -1::bigint AS id
          FROM unnest('{cancelled,discarded}'::text[]) s (state)
        UNION ALL
        SELECT 'completed ' || q.queue, q.queue, '{completed}',
               now() - (q.rule ->> 'completed_ms')::bigint * interval '1 millisecond', -1 FROM q
        UNION ALL
        SELECT 'failed ' || q.queue, q.queue, '{cancelled,discarded}',
               now() - (q.rule ->> 'failed_ms')::bigint * interval '1 millisecond', -1 FROM q
        UNION ALL
        SELECT 'count ' || q.queue, q.queue, '{completed,cancelled,discarded}', n.at, n.id
          FROM q CROSS JOIN LATERAL @schema@.newest_end(q.queue, (q.rule ->> 'count')::bigint) n
         WHERE (q.rule ->> 'count')::bigint > 0
    )
    SELECT coalesce(jsonb_agg(to_jsonb(r)), '[]') FROM r WHERE r.at IS NOT NULL
$$;

-- Deletes from the history what the policy does not keep, looking through `pages` pages at least: 1 when there is more to do,
-- in another transaction, 0 when the round is over, or somebody else is at it. The next call begins the next round. It
-- waits for no row: one that somebody is about to retry or delete is passed over, as is a partition that is locked, and what
-- the database refuses to delete. The next round comes back to these.
CREATE FUNCTION @schema@.prune_history(policy jsonb, pages int) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $$
#variable_conflict use_variable
DECLARE
    tries CONSTANT int := 20; -- windows a call without anything to delete in them
    -- Before PostgreSQL 14 a range of ctids is no way into a table: there each call reads it from the start, for so many rows.
    most CONSTANT bigint := CASE WHEN current_setting('server_version_num')::int < 140000 THEN pages::bigint * 20 END;
    round @schema@.pruning;
    part record;
    file_pages bigint;
    due bigint; -- how many rows of the window are to go
    gone record;
    old_rows tid[];
BEGIN
    IF policy IS NULL OR jsonb_typeof(policy) <> 'object' THEN
        RAISE EXCEPTION 'jobq.prune_history: policy must be a JSON object, got %', @schema@.shown(policy)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF pages IS NULL OR pages < 1 THEN
        RAISE EXCEPTION 'jobq.prune_history: pages must be 1 or more, got %', coalesce(pages::text, 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT EXISTS (SELECT FROM @schema@.pruning) THEN -- else an update under way would be waited for
        INSERT INTO @schema@.pruning (policy) VALUES (prune_history.policy) ON CONFLICT DO NOTHING;
    END IF;
    SELECT * INTO round FROM @schema@.pruning FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    IF cardinality(round.todo) = 0 OR round.policy <> policy THEN
        round.policy := policy;
        round.rules := @schema@.prune_rules(policy);
        round.next_page := 0;
        round.left_some := false;
        DELETE FROM @schema@.pruned d WHERE NOT EXISTS (SELECT FROM @schema@.history_parts() p WHERE p.name = d.partition);
        round.todo := ARRAY(
            SELECT DISTINCT p.name
              FROM @schema@.history_parts() p, jsonb_to_recordset(round.rules) r (rule text, states jsonb, at timestamptz)
             WHERE p.low <= r.at AND (r.states ? 'completed' AND p.completed
                                      OR r.states ?| '{cancelled,discarded}' AND NOT p.completed)
                   AND NOT EXISTS (SELECT FROM @schema@.pruned d WHERE d.partition = p.name AND d.rule = r.rule)
             ORDER BY p.name);
    END IF;
    FOR try IN 1 .. tries LOOP
        EXIT WHEN cardinality(round.todo) = 0;
        SELECT * INTO part FROM @schema@.history_parts() p WHERE p.name = round.todo[1];
        IF NOT FOUND THEN -- dropped meanwhile
            round.todo := round.todo[2:];
            round.next_page := 0;
            round.left_some := false;
            CONTINUE;
        END IF;
        BEGIN
            file_pages := pg_relation_size(format('@schema@.%I', part.name)::regclass) / current_setting('block_size')::int;
            EXECUTE format(
                'WITH r AS MATERIALIZED ('
                'SELECT * FROM jsonb_to_recordset($1) r (queue text, states text[], at timestamptz, id bigint)), '
                'f AS MATERIALIZED (SELECT f.ctid FROM @schema@.%1$I f WHERE f.ctid >= %2$L::tid AND f.ctid < %3$L::tid AND EXISTS ('
                'SELECT FROM r WHERE (r.queue IS NULL OR r.queue = f.queue) AND f.state::text = ANY (r.states) '
                'AND (f.finished_at, f.id) < (r.at, r.id)) LIMIT %4$s) '
                'SELECT ARRAY(SELECT t.ctid FROM @schema@.%1$I t WHERE t.ctid = ANY (ARRAY(SELECT f.ctid FROM f)) '
                'FOR UPDATE OF t SKIP LOCKED), (SELECT count(*) FROM f)', part.name,
                format('(%s,0)', round.next_page),
                format('(%s,0)', CASE WHEN most IS NULL THEN least(round.next_page + pages, 4294967295) ELSE 4294967295 END),
                coalesce(most::text, 'ALL'))
               INTO old_rows, due USING round.rules;
        EXCEPTION WHEN lock_not_available THEN
            round.todo := round.todo[2:];
            round.next_page := 0;
            round.left_some := false;
            PERFORM set_config('lock_timeout', '1ms', true); -- once is patience enough
            CONTINUE;
        END;
        gone := @schema@._delete_apart(part.name, old_rows);
        EXIT WHEN gone.untried AND gone.deleted > 0; -- the same pages once more
        round.left_some := gone.deleted < due OR round.left_some AND most IS NULL;
        IF most IS NULL THEN
            round.next_page := round.next_page + pages;
        END IF;
        IF round.next_page >= file_pages OR due < most OR gone.deleted = 0 AND most IS NOT NULL THEN
            INSERT INTO @schema@.pruned (partition, rule)
            SELECT part.name, r.rule FROM jsonb_to_recordset(round.rules) r (rule text, at timestamptz)
             WHERE r.at >= part.high AND part.high < now() AND NOT round.left_some
                ON CONFLICT DO NOTHING;
            round.todo := round.todo[2:];
            round.next_page := 0;
            round.left_some := false;
        END IF;
        EXIT WHEN gone.deleted > 0;
    END LOOP;
    UPDATE @schema@.pruning p
       SET policy = round.policy, rules = round.rules, todo = round.todo, next_page = round.next_page, left_some = round.left_some;
    RETURN CASE WHEN cardinality(round.todo) > 0 THEN 1 ELSE 0 END;
END
$$;

-- ---- to wait for a job's end ----

-- How a job stands, for wait: an error when no job has that id.
CREATE FUNCTION @schema@.standing(id bigint, OUT state text, OUT result jsonb)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
BEGIN
    SELECT j.state::text INTO state FROM @schema@.jobs j WHERE j.id = standing.id;
    IF NOT FOUND THEN
        SELECT j.state::text, j.result INTO state, result FROM @schema@.all_jobs j WHERE j.id = standing.id;
    END IF;
    IF state IS NULL THEN
        RAISE EXCEPTION 'jobq.wait: no job has the id %, or it has left no trace', coalesce(standing.id::text, 'null')
            USING ERRCODE = 'no_data_found';
    END IF;
END
$$;

-- Returns when the job has ended, or when `timeout` is over: state says which. It commits between its looks, so that no
-- snapshot is held: called within a transaction it fails, unless the job has ended already. A procedure that commits may
-- have no SET clause, so every name is qualified.
CREATE PROCEDURE @schema@.wait(id bigint, timeout interval, INOUT state text DEFAULT NULL, INOUT result jsonb DEFAULT NULL)
LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    ends_at pg_catalog.timestamptz;
    left_s pg_catalog.float8;
    pause_s pg_catalog.float8 := 0.001;
BEGIN
    IF wait.timeout IS NULL OR wait.timeout OPERATOR(pg_catalog.<) '0'::pg_catalog.interval THEN
        RAISE EXCEPTION 'jobq.wait: timeout must be an interval of 0 or more, got %',
            coalesce(wait.timeout::pg_catalog.text, 'null') USING ERRCODE = 'invalid_parameter_value';
    END IF;
    ends_at := pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) least(wait.timeout, '100 years'::pg_catalog.interval);
    LOOP
        SELECT s.state, s.result INTO wait.state, wait.result FROM @schema@.standing(wait.id) s;
        left_s := pg_catalog.date_part('epoch', ends_at OPERATOR(pg_catalog.-) pg_catalog.clock_timestamp());
        EXIT WHEN wait.state OPERATOR(pg_catalog.=) ANY ('{completed,cancelled,discarded}'::pg_catalog.text[])
                  OR left_s OPERATOR(pg_catalog.<=) 0;
        COMMIT;
        PERFORM pg_catalog.pg_sleep(least(pause_s, left_s));
        pause_s := least(pause_s OPERATOR(pg_catalog.*) 1.5, 0.1);
    END LOOP;
END
$$;

-- ---- for the tests of applications (jobq/testing.h) ----
--
-- What libjobq does on an application's connection, whose search_path is not ours: so it stands here. Node 0 holds the job,
-- which is none.

-- Claims the queue's next job for a test: not one of `but`, none above `upto` (0: any), with `early` also those whose time
-- has not come.
CREATE FUNCTION @schema@._testing_claim(queue text, but bigint[], upto bigint, early boolean)
RETURNS TABLE (id bigint, kind text, job_queue text, args jsonb, meta jsonb, attempt int, max_attempts int, timeout_ms int)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    UPDATE @schema@.jobs j
       SET state = 'executing', attempt = j.attempt + 1, attempted_at = clock_timestamp(), attempted_by = 0,
           position = coalesce(j.position, @schema@.next_position())
     WHERE j.id = (
           SELECT l.id
             FROM @schema@.jobs l
            WHERE l.queue = $1 AND l.id <> ALL ($2) AND ($3 = 0 OR l.id <= $3)
              AND (l.state = 'available'
                   OR l.state IN ('scheduled', 'retryable') AND ($4 OR l.scheduled_at <= clock_timestamp()))
              AND (l.expires_at IS NULL OR l.expires_at > now() OR l.attempt > 0)
            ORDER BY l.priority, l.position NULLS LAST, l.scheduled_at, l.id
            LIMIT 1
              FOR UPDATE SKIP LOCKED)
    RETURNING j.id, j.kind, j.queue, j.args, j.meta, j.attempt, j.max_attempts, j.timeout_ms
$$;

-- Settles it, by the rules of jobqd: outcome is completed, failed, discarded, cancelled or snoozed. The state that it has
-- now; null when that attempt does not hold it. The row of the history is made of the job's by name, so that no column is forgotten.
CREATE FUNCTION @schema@._testing_settle(id bigint, attempt int, outcome text, delay_ms bigint, entry jsonb, result jsonb,
    run_us bigint) RETURNS text
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    WITH v AS MATERIALIZED (
        SELECT j.id, c.forget,
               CASE WHEN $3 = 'completed' THEN $3
                    WHEN c.asked OR $3 = 'cancelled' THEN 'cancelled'
                    WHEN $3 = 'discarded' OR $3 = 'failed' AND j.attempt >= j.max_attempts THEN 'discarded'
                    WHEN $4 <= 0 THEN 'available'
                    WHEN $3 = 'snoozed' THEN 'scheduled'
                    ELSE 'retryable' END::@schema@.job_state AS next,
               CASE WHEN $5 IS NULL AND NOT c.asked THEN j.errors ELSE @schema@._add_error(j.errors,
                   jsonb_build_object('attempt', j.attempt, 'at', clock_timestamp(), 'claimed_at', j.attempted_at,
                                      'node', 'drain')
                   || coalesce($5, '{"kind": "cancelled", "error": "cancelled by request"}')
                   || CASE WHEN c.asked THEN '{"cancelled": "by request"}'::jsonb ELSE '{}' END) END AS errors
          FROM @schema@.jobs j
         CROSS JOIN LATERAL (
                SELECT count(*) > 0 AS asked, coalesce(bool_or(r.forget), false) AS forget
                  FROM @schema@.cancels r
                 WHERE $3 <> 'completed' AND r.job_id = j.id AND r.attempt = j.attempt AND r.node_id <= 0) c
         WHERE j.id = $1 AND j.attempt = $2 AND j.attempted_by = 0 AND j.state = 'executing'
           FOR UPDATE OF j
    ), again AS (
        UPDATE @schema@.jobs j
           SET state = v.next, errors = v.errors,
               position = CASE WHEN v.next = 'available' THEN @schema@.next_position() END,
               attempt = j.attempt - CASE WHEN $3 = 'snoozed' THEN 1 ELSE 0 END,
               scheduled_at = clock_timestamp() + $4 * interval '1 millisecond'
          FROM v
         WHERE j.id = ANY (ARRAY[v.id]) AND v.next IN ('available', 'scheduled', 'retryable')
    ), gone AS (
        DELETE FROM @schema@.jobs j
         USING v
         WHERE j.id = ANY (ARRAY[v.id]) AND v.next IN ('completed', 'cancelled', 'discarded')
        RETURNING j.*
    ), kept AS (
        INSERT INTO @schema@.finished_jobs
        SELECT r.*
          FROM gone g
         CROSS JOIN v
         CROSS JOIN LATERAL jsonb_populate_record(NULL::@schema@.finished_jobs, to_jsonb(g) || jsonb_build_object(
                'state', v.next, 'position', NULL, 'errors', v.errors, 'result', $6, 'finished_at', clock_timestamp(),
                'run_us', $7)) r
         WHERE NOT v.forget
    ), answered AS (
        DELETE FROM @schema@.cancels r USING v WHERE r.job_id = ANY (ARRAY[v.id]) AND v.next <> 'completed'
    )
    SELECT v.next::text FROM v
$$;

-- How many jobs are like this (null: any), and the three that are most like it as text.
CREATE FUNCTION @schema@._testing_look(kind text, queue text, args jsonb, meta jsonb, tags text[], priority int, state text,
    due_from timestamptz, due_before timestamptz, OUT matching bigint, OUT nearest text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH seen AS (
        SELECT j.*,
               ARRAY[coalesce(j.kind = $1, true), coalesce(j.queue = $2, true), coalesce(j.args @> $3, true),
                     coalesce(j.meta @> $4, true), j.tags @> $5, coalesce(j.priority = $6, true),
                     coalesce(j.scheduled_at >= $8, true), coalesce(j.scheduled_at < $9, true)] AS fits
          FROM @schema@.all_jobs j
         WHERE CASE WHEN $7 IS NULL THEN j.state IN ('available', 'scheduled', 'retryable', 'suspended')
                    ELSE j.state::text = $7 END
    ), ranked AS (
        SELECT s.*, cardinality(array_positions(s.fits, true)) AS good FROM seen s
    )
    SELECT (SELECT count(*) FROM ranked r WHERE r.good = 8),
           (SELECT string_agg(n.line, '; ' ORDER BY n.good DESC, n.id DESC)
              FROM (SELECT r.good, r.id,
                           format('job %s kind %s queue %s priority %s %s args %s%s', r.id, to_json(r.kind), to_json(r.queue),
                                  r.priority, r.state, left(r.args::text, 80),
                                  CASE WHEN r.tags <> '{}' THEN ' tags ' || left(to_json(r.tags)::text, 40) ELSE '' END) AS line
                      FROM ranked r
                     ORDER BY r.good DESC, r.id DESC
                     LIMIT 3) n)
$$;
