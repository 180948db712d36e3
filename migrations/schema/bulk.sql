-- Cancel, retry and delete many jobs at once by a filter; purge.

-- live, ended: the conditions for live and for finished jobs, with every value quoted as a literal. still: the conditions
-- that may have changed since a live job was found (not its id). most: the filter's limit, or null. by_id: the filter names
-- few jobs, so that an index finds them. A time must name its zone.
CREATE OR REPLACE FUNCTION @schema@._filter_sql(caller text, filter jsonb, OUT live text, OUT still text, OUT ended text,
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
        RAISE EXCEPTION 'jobq.%: filter must be a JSON object, got %', caller, @schema@._shown_quoted(filter)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF @schema@._long_number(filter) THEN
        RAISE EXCEPTION 'jobq.%: filter must not hold a number with more than 4000 digits before or after the decimal point', caller
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
                numbers := @schema@._numbers_of(got, 1, 9223372036854775807);
                by_id := cardinality(numbers) <= 200;
                of_ids := format('j.id = ANY (%L::bigint[])', numbers);
                condition := CASE WHEN numbers IS NOT NULL THEN 'true' END;
            END IF;
        WHEN name = 'state' THEN
            allowed := 'a state or an array of states (' || states || ')';
            texts := @schema@._texts_of(got);
            IF texts <@ enum_range(NULL::@schema@.job_state)::text[] THEN
                condition := format('j.state = ANY (%L::@schema@.job_state[])', texts);
            END IF;
        WHEN name IN ('queue', 'kind') THEN
            allowed := 'a text or an array of texts';
            texts := @schema@._texts_of(got);
            condition := CASE WHEN texts IS NOT NULL THEN format('j.%s = ANY (%L::text[])', name, texts) END;
        WHEN name = 'tags' THEN
            allowed := 'an array of one or more texts';
            IF jsonb_typeof(got) = 'array' AND got <> '[]' THEN
                texts := @schema@._texts_of(got);
                condition := CASE WHEN texts IS NOT NULL THEN format('j.tags @> %L::text[]', texts) END;
            END IF;
        WHEN name = 'key' THEN
            allowed := 'a text';
            condition := CASE WHEN jsonb_typeof(got) = 'string' THEN format('j.key = %L', got #>> '{}') END;
        WHEN name IN ('args', 'meta') THEN
            -- Every object contains {}.
            allowed := 'a JSON object with at least one member';
            IF jsonb_typeof(got) = 'object' AND got <> '{}' THEN
                condition := format('j.%s @> %L::jsonb', name, got);
            END IF;
        WHEN name = 'priority' THEN
            allowed := '0 to 9 or an array of such numbers';
            numbers := @schema@._numbers_of(got, 0, 9);
            condition := CASE WHEN numbers IS NOT NULL THEN format('j.priority = ANY (%L::smallint[])', numbers) END;
        WHEN name IN ('inserted_before', 'inserted_after', 'scheduled_before', 'scheduled_after', 'finished_before',
                      'finished_after') THEN
            allowed := 'a time such as "2026-01-31T12:00:00Z"';
            at := @schema@._time_of(got);
            IF at IS NOT NULL AND NOT @schema@._names_zone(got #>> '{}') THEN
                allowed := 'a time with its zone, such as "2026-01-31T12:00:00Z" or "2026-01-31T13:00:00+01:00"';
            ELSIF at IS NOT NULL THEN
                condition := format('j.%s_at %s %L::timestamptz', split_part(name, '_', 1),
                                    CASE WHEN name LIKE '%before' THEN '<' ELSE '>' END, @schema@._iso(at));
            END IF;
            IF name LIKE 'finished%' AND condition IS NOT NULL THEN
                conditions := conditions || condition;
                is_live := false;
                conditional := true;
                CONTINUE;
            END IF;
        WHEN name = 'limit' THEN
            allowed := '1 to 2147483647';
            numbers := @schema@._numbers_of(got, 1, 2147483647);
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
            RAISE EXCEPTION 'jobq.%: filter.% must be %, got %', caller, name, allowed, @schema@._shown_quoted(got)
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        conditional := true;
        conditions := conditions || condition;
    END LOOP;
    IF NOT conditional THEN
        RAISE EXCEPTION 'jobq.%: filter must have a condition, or "all": true for every job, got %', caller,
            @schema@._shown_quoted(filter) USING ERRCODE = 'invalid_parameter_value';
    END IF;
    still := CASE WHEN is_live THEN array_to_string(conditions, ' AND ') ELSE 'false' END;
    ended := concat_ws(' AND ', of_ids, array_to_string(conditions, ' AND '));
    live := CASE WHEN is_live THEN ended ELSE 'false' END;
END
$$;
COMMENT ON FUNCTION @schema@._filter_sql IS 'Checks a filter and turns it into SQL conditions on a row j.';

-- ---- finished jobs ----

-- The job may be from before a limit, or written by hand.
CREATE OR REPLACE FUNCTION @schema@._retryable() RETURNS text LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'j.attempt BETWEEN 0 AND 999 AND j.id BETWEEN 1 AND 9007199254740991 AND '
           '@schema@._job_fault(j.kind, j.args, j.queue, j.priority::int, NULL, j.max_attempts, j.key, j.unique_key, j.tags, '
           'j.meta, j.timeout_ms, CASE WHEN j.expires_at > now() THEN j.expires_at END) IS NULL'
$$;
COMMENT ON FUNCTION @schema@._retryable IS 'The SQL condition on a row j of the history that the job can run again.';

-- ---- waiting for locks without blocking others ----
--
-- The functions below hold locks on many rows. If they waited for a lock while they hold those, they could be part of a
-- deadlock, for example with an enqueue_many that replaces. So they check again and again whether a row is free, for
-- lock_timeout, or for ten seconds if that is not set. Then they raise an error, and nothing was changed. They wait for two
-- locks only: for another session's request to cancel, while they hold no lock, and for a unique key, in the order of
-- enqueue_many (_bulk_ended).

CREATE OR REPLACE FUNCTION @schema@._bulk_patience() RETURNS interval
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(nullif(s.setting::bigint, 0), 10000) * interval '1 millisecond'
      FROM pg_settings s WHERE s.name = 'lock_timeout'
$$;
COMMENT ON FUNCTION @schema@._bulk_patience IS
    'How long the bulk functions wait for locked rows: lock_timeout, or 10 s if that is not set.';

CREATE OR REPLACE FUNCTION @schema@._bulk_pause(what text, INOUT waited interval, patience interval)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    pause CONSTANT interval := least(greatest(waited / 4, '1 ms'), '50 ms');
BEGIN
    IF waited >= patience THEN
        RAISE EXCEPTION 'jobq: % has been locked by another session for more than % s; nothing was changed', what,
            round(extract(epoch FROM patience)::numeric, 1) USING ERRCODE = 'lock_not_available';
    END IF;
    PERFORM pg_sleep(extract(epoch FROM pause));
    waited := waited + pause;
END
$$;
COMMENT ON FUNCTION @schema@._bulk_pause IS 'Waits a moment, longer each time; an error once the patience is over.';

-- ---- live jobs ----

-- A batch with locked rows is rolled back, which releases its rows, and tried again in smaller batches: at last that row by
-- itself, until it is free. Jobs that run by then are left out. skip: locked jobs are left out as well. A job that the
-- database refuses to change is left out and named in a warning; after a hundred of them that is an error, and nothing was
-- changed. sweep: it is never an error, and neither is a lock that a change waits for (of rows that go with the job, for
-- example); jobs that are left after a second are for the next call.
CREATE OR REPLACE FUNCTION @schema@._bulk_waiting(act text, matches text, ids bigint[], skip boolean DEFAULT false,
    sweep boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    largest CONSTANT int := 16384;
    patience CONSTANT interval := @schema@._bulk_patience();
    waited interval := '0';
    size int := 4096;
    at int := 1;
    done bigint := 0;
    refused int := 0;
    used int := 0; -- sweep: more than 60 subtransactions slow down the snapshots of all sessions
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
            'kept AS (INSERT INTO @schema@.finished_jobs (@job_columns@, errors, finished_at, state) '
            'SELECT @job_columns@, errors, clock_timestamp(), ''cancelled'' FROM gone)'
        WHEN 'delete' THEN
            'gone AS (DELETE FROM @schema@.jobs j USING locked l WHERE j.id = ANY (ARRAY[l.id]) RETURNING j.id), '
            'noted AS (DELETE FROM @schema@._progress p USING locked l WHERE p.job_id = ANY (ARRAY[l.id])), '
            'asked AS (DELETE FROM @schema@._cancels c WHERE c.ctid = ANY (ARRAY(SELECT d.ctid FROM @schema@._cancels d, locked l '
            'WHERE d.job_id = ANY (ARRAY[l.id]) FOR UPDATE OF d SKIP LOCKED)))'
        WHEN 'retry' THEN
            'again AS (UPDATE @schema@.jobs j SET state = ''available'', position = @schema@._next_position(), '
            'scheduled_at = now(), retried_attempt = attempt, '
            'expires_at = CASE WHEN expires_at > now() THEN expires_at END '
            'FROM locked l WHERE j.id = ANY (ARRAY[l.id]) RETURNING j.queue), '
            'asked AS (DELETE FROM @schema@._cancels c WHERE c.ctid = ANY (ARRAY(SELECT d.ctid FROM @schema@._cancels d, locked l '
            'WHERE d.job_id = ANY (ARRAY[l.id]) FOR UPDATE OF d SKIP LOCKED)))'
        END,
        CASE act WHEN 'retry' THEN ', (SELECT @schema@._wake(array_agg(DISTINCT a.queue)) FROM again a)' ELSE '' END,
        CASE act WHEN 'retry' THEN 'again' ELSE 'gone' END);
    WHILE at <= cardinality(ids) AND NOT (sweep AND (used >= 60 OR clock_timestamp() > until)) LOOP
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
                    waited := @schema@._bulk_pause('job ' || ids[at], waited, patience);
                END IF;
                size := greatest(size / 4, 1);
            WHEN OTHERS OR assert_failure THEN
                IF @schema@._is_passing(SQLSTATE) OR NOT sweep AND (SQLSTATE = '55P03' OR refused >= 100) THEN
                    RAISE;
                END IF;
                IF SQLSTATE = '55P03' THEN
                    PERFORM set_config('lock_timeout', '1ms', true); -- until _cancel_again() ends
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
COMMENT ON FUNCTION @schema@._bulk_waiting IS
    'Cancels, deletes or retries those of `ids` that match and wait; returns how many.';

-- It waits for another session's request for the same attempt, in the order of the ids. later: it does not wait, and
-- includes jobs that wait. The requests then name a node that does not exist, and are left to _cancel_again(). The number of
-- that node is the transaction's, so that no transaction waits for a request of another. A request to forget a job is made
-- in this way, too, if an earlier one does not say forget, because the row of that one must not be locked.
CREATE OR REPLACE FUNCTION @schema@._bulk_ask(forget boolean, matches text, ids bigint[], later boolean DEFAULT false) RETURNS bigint[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    asked bigint[];
BEGIN
    EXECUTE format(
        'WITH rest AS MATERIALIZED (SELECT j.id, j.attempt, coalesce(j.attempted_by, 0) AS node FROM @schema@.jobs j '
        'WHERE j.id = ANY ($1) AND (%s) AND (j.state = ''executing'' OR $3)), '
        'fresh AS (INSERT INTO @schema@._cancels (job_id, attempt, node_id, forget) '
        'SELECT r.id, r.attempt, CASE WHEN $3 THEN -pg_current_xact_id()::text::bigint ELSE r.node END, $2 FROM rest r '
        'ORDER BY r.id ON CONFLICT DO NOTHING RETURNING job_id), '
        'more AS (INSERT INTO @schema@._cancels (job_id, attempt, node_id, forget) '
        'SELECT r.id, r.attempt, -pg_current_xact_id()::text::bigint, $2 FROM rest r '
        'WHERE $2 AND NOT EXISTS (SELECT FROM fresh f WHERE f.job_id = r.id) AND NOT EXISTS ('
        'SELECT FROM @schema@._cancels c WHERE c.job_id = r.id AND c.attempt = r.attempt AND c.forget) '
        'ORDER BY r.id ON CONFLICT DO NOTHING) '
        'SELECT array_agg(r.id) FROM rest r', matches)
       INTO asked USING ids, forget, later;
    IF asked IS NOT NULL AND NOT later THEN
        PERFORM @schema@._notify('cancel');
    END IF;
    RETURN coalesce(asked, '{}');
END
$$;
COMMENT ON FUNCTION @schema@._bulk_ask IS
    'Asks the nodes to stop those of `ids` that match and run; returns which these are.';

-- Between the two steps some may be claimed, or have ended an attempt. These are out of order, so it waits for none of their
-- locks.
CREATE OR REPLACE FUNCTION @schema@._bulk_end(forget boolean, matches text, ids bigint[], OUT n bigint, OUT asked bigint[])
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    act CONSTANT text := CASE WHEN forget THEN 'delete' ELSE 'cancel' END;
    rest bigint[];
BEGIN
    asked := @schema@._bulk_ask(forget, matches, ids);
    rest := ARRAY(SELECT unnest(ids) EXCEPT SELECT unnest(asked) ORDER BY 1);
    n := @schema@._bulk_waiting(act, matches, rest);
    IF n < cardinality(rest) THEN
        n := n + @schema@._bulk_waiting(act, matches, rest, true);
        asked := asked || @schema@._bulk_ask(forget, matches, rest, true);
    END IF;
    n := n + cardinality(asked);
END
$$;
COMMENT ON FUNCTION @schema@._bulk_end IS
    'Ends those of `ids` that match: asks running jobs to stop, then ends the others at once.';

-- locked: what to do about locked rows: wait for them, fail (lock_not_available), or skip them. A job that has used all
-- attempts cannot be retried, because the number of an attempt is never used twice. Neither can a job whose unique key a
-- live job holds, nor one whose args are larger than a job may have. These jobs stay. Unique keys are taken in their order
-- over all partitions, as enqueue_many takes them, because an insert waits for the session that holds its key. So this must
-- come before any live job is locked, and before one is deleted.
CREATE OR REPLACE FUNCTION @schema@._bulk_ended_at_once(act text, matches text, most bigint, by_id boolean, locked text) RETURNS bigint[]
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
    tids text[]; -- for each of these partitions, its rows as the text of an array
    pieces text;
    again bigint[];
    those bigint[];
    wanted int := 0;
    done bigint[] := '{}';
BEGIN
    IF by_id THEN
        PERFORM set_config('enable_seqscan', 'off', true); -- until the function ends
    ELSE
        PERFORM set_config('enable_bitmapscan', 'off', true); -- BRIN must not be asked id by id
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
            waited := @schema@._bulk_pause('a job that has ended', greatest(waited, clock_timestamp() - began),
                                          CASE locked WHEN 'fail' THEN '0' ELSE @schema@._bulk_patience() END);
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
                       'noted AS (DELETE FROM @schema@._progress p USING gone g WHERE p.job_id = ANY (ARRAY[g.id])), '
                       'asked AS (DELETE FROM @schema@._cancels c WHERE c.ctid = ANY (ARRAY(SELECT d.ctid '
                       'FROM @schema@._cancels d, gone l WHERE d.job_id = ANY (ARRAY[l.id]) FOR UPDATE OF d SKIP LOCKED))) '
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
COMMENT ON FUNCTION @schema@._bulk_ended_at_once IS
    'Deletes finished jobs that match, or makes them available again; returns their ids.';

-- Jobs that the database refuses to change are found by halving, and each is named in a warning. After a hundred of them
-- that is an error, and nothing was changed. sweep: as in _bulk_waiting.
CREATE OR REPLACE FUNCTION @schema@._bulk_ended(act text, matches text, most bigint, by_id boolean, locked text DEFAULT 'wait',
    sweep boolean DEFAULT false) RETURNS bigint[]
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
    -- Of two conditions on the id only one may use the index (one with IS TRUE cannot): BRIN would be asked for each pair of
    -- ids.
    BEGIN
        RETURN @schema@._bulk_ended_at_once(act, matches, most, by_id, locked);
    EXCEPTION WHEN OTHERS OR assert_failure THEN
        IF @schema@._is_passing(SQLSTATE) OR NOT sweep AND SQLSTATE = '55P03' THEN
            RAISE;
        END IF;
        IF SQLSTATE = '55P03' THEN
            PERFORM set_config('lock_timeout', '1ms', true); -- until _cancel_again() ends
        END IF;
    END;
    EXECUTE format('SELECT ARRAY(SELECT j.id FROM @schema@.finished_jobs j WHERE (%s)%s ORDER BY j.id LIMIT %s)', matches,
                   CASE act WHEN 'retry' THEN ' AND j.attempt < 1000' ELSE '' END, coalesce(most::text, 'ALL')) INTO ids;
    highs := ARRAY[cardinality(ids)];
    WHILE cardinality(lows) > 0 AND cardinality(ids) > 0
          AND NOT (sweep AND (used >= 60 OR clock_timestamp() > until)) LOOP
        low := lows[cardinality(lows)];
        high := highs[cardinality(highs)];
        lows := lows[1 : cardinality(lows) - 1];
        highs := highs[1 : cardinality(highs) - 1];
        BEGIN
            done := done || @schema@._bulk_ended_at_once(
                act, format(CASE WHEN by_id THEN '(%s) AND (j.id = ANY (%L::bigint[])) IS TRUE'
                                 WHEN high - low < 200 THEN '(%s) IS TRUE AND j.id = ANY (%L::bigint[])'
                                 ELSE '(%s) AND j.id = ANY (%L::bigint[])' END, matches, ids[low : high]), NULL,
                by_id OR high - low < 200, locked);
            used := used + 1;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            IF @schema@._is_passing(SQLSTATE) OR NOT sweep AND (SQLSTATE = '55P03' OR refused >= 100) THEN
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
COMMENT ON FUNCTION @schema@._bulk_ended IS
    'Does the same as _bulk_ended_at_once, but leaves out jobs that the database refuses to change.';

CREATE OR REPLACE FUNCTION @schema@._bulk_forget(matches text, by_id boolean) RETURNS bigint[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = on
SET enable_bitmapscan = on SET enable_hashjoin = on AS $$
#variable_conflict use_variable
DECLARE
    left_over bigint[];
BEGIN
    IF by_id THEN
        PERFORM set_config('enable_seqscan', 'off', true);
    ELSE
        PERFORM set_config('enable_bitmapscan', 'off', true); -- BRIN must not be asked id by id
    END IF;
    EXECUTE format('WITH requests AS (INSERT INTO @schema@._cancels (job_id, attempt, node_id, forget) '
                   'SELECT j.id, j.attempt, -pg_current_xact_id()::text::bigint, true FROM @schema@.finished_jobs j WHERE %s '
                   'ON CONFLICT DO NOTHING RETURNING job_id) SELECT array_agg(job_id) FROM requests', matches) INTO left_over;
    RETURN coalesce(left_over, '{}');
END
$$;
COMMENT ON FUNCTION @schema@._bulk_forget IS
    'Leaves finished jobs that match to _cancel_again(), which deletes them; returns their ids.';

-- ---- the public functions ----

CREATE OR REPLACE FUNCTION @schema@._bulk_find(live text, ended text, most bigint, by_id boolean, OUT ids bigint[], OUT last_id bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = on
SET enable_bitmapscan = on AS $$
#variable_conflict use_variable
BEGIN
    IF by_id THEN
        PERFORM set_config('enable_seqscan', 'off', true);
    ELSE
        PERFORM set_config('enable_bitmapscan', 'off', true); -- BRIN must not be asked id by id
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
COMMENT ON FUNCTION @schema@._bulk_find IS
    'The ids of the live jobs that match, in order; with a limit also the last id to act upon, live or finished.';

CREATE OR REPLACE FUNCTION @schema@.cancel_many(filter jsonb) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    f record;
BEGIN
    f := @schema@._filter_sql('cancel_many', cancel_many.filter);
    RETURN e.n FROM @schema@._bulk_find(f.live, 'false', f.most, f.by_id) b, @schema@._bulk_end(false, f.still, b.ids) e;
END
$$;
COMMENT ON FUNCTION @schema@.cancel_many IS
'Cancels the live jobs that a filter names, all or none. Jobs that wait end as cancelled at once; the nodes of executing jobs
are asked to stop them.
filter is a JSON object whose members must all hold: all (true), ids, state, queue, kind, tags, key, args and meta (which the
job''s must contain), priority, inserted_before, inserted_after, scheduled_before, scheduled_after, finished_before and
finished_after (times that name their zone); limit takes the jobs with the smallest ids. An empty filter is refused.
Returns how many, executing jobs included.
SQLSTATEs: 22023 the filter is wrong; 55P03 a job stayed locked for lock_timeout (10 s if that is not set).';

CREATE OR REPLACE FUNCTION @schema@.retry_many(filter jsonb) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    f record;
    found record;
    most_ended bigint;
    again bigint[];
BEGIN
    f := @schema@._filter_sql('retry_many', retry_many.filter);
    SELECT * INTO found
      FROM @schema@._bulk_find('(' || f.live || ') AND j.state IN (''scheduled'', ''retryable'')',
                              '(' || f.ended || ') AND ' || @schema@._retryable(), f.most, f.by_id);
    -- Finished jobs come first: they may wait for a unique key, and we hold no live job by then.
    most_ended := f.most - coalesce(cardinality(found.ids), 0);
    again := @schema@._bulk_ended('retry',
        f.ended || CASE WHEN f.most IS NULL THEN '' ELSE ' AND j.id <= ' || coalesce(found.last_id, 0) END, most_ended, f.by_id);
    RETURN cardinality(again) + @schema@._bulk_waiting('retry', f.still, found.ids);
END
$$;
COMMENT ON FUNCTION @schema@.retry_many IS
'Makes jobs available now as retry() does, all or none: finished jobs, and live jobs that wait for their time.
filter is as for cancel_many(). Returns how many. These jobs stay as they are and are not counted: available, suspended and
executing ones, and those for which retry() is an error.
SQLSTATEs: 22023 the filter is wrong; 55P03 a job stayed locked for lock_timeout (10 s if that is not set).';

CREATE OR REPLACE FUNCTION @schema@._bulk_delete(caller text, filter jsonb) RETURNS bigint
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
    f := @schema@._filter_sql(caller, filter);
    found := @schema@._bulk_find(f.live, f.ended, f.most, f.by_id);
    bound := CASE WHEN f.most IS NULL THEN '' ELSE ' AND j.id <= ' || coalesce(found.last_id, 0) END;
    gone := @schema@._bulk_ended('delete', f.ended || bound, f.most - coalesce(cardinality(found.ids), 0), f.by_id);
    IF f.most IS NULL THEN -- one of them may just have been retried
        found.ids := ARRAY(SELECT unnest(found.ids) UNION SELECT unnest((@schema@._bulk_find(f.live, 'false', NULL, f.by_id)).ids)
                            ORDER BY 1);
    END IF;
    live := @schema@._bulk_end(true, f.still, found.ids);
    IF live.n < cardinality(found.ids) THEN -- some have finished in the meantime; locked ones are forgotten later
        rest := ARRAY(SELECT unnest(found.ids) EXCEPT SELECT unnest(live.asked));
        f.ended := format('(%s) IS TRUE AND j.id = ANY (%L::bigint[])', f.ended, rest);
        f.by_id := cardinality(rest) <= 200;
        gone := gone || @schema@._bulk_ended('delete', f.ended, NULL, f.by_id, 'skip');
        gone := gone || @schema@._bulk_forget(f.ended, f.by_id);
    END IF;
    RETURN cardinality(gone) + live.n;
END
$$;
COMMENT ON FUNCTION @schema@._bulk_delete IS 'The work of delete_many and purge.';

CREATE OR REPLACE FUNCTION @schema@.delete_many(filter jsonb) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
    RETURN @schema@._bulk_delete('delete_many', delete_many.filter);
END
$$;
COMMENT ON FUNCTION @schema@.delete_many IS
'Deletes jobs, live and finished, without a trace, all or none. The nodes of executing jobs are asked to stop them; these
leave no trace either, however they end.
filter is as for cancel_many(). Returns how many, executing jobs included.
SQLSTATEs: 22023 the filter is wrong; 55P03 a job stayed locked for lock_timeout (10 s if that is not set).';

CREATE OR REPLACE FUNCTION @schema@.purge(args jsonb, kind text DEFAULT NULL, queue text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
    IF purge.args IS NULL OR jsonb_typeof(purge.args) <> 'object' OR purge.args = '{}' THEN
        RAISE EXCEPTION 'jobq.purge: args must be a JSON object with at least one member, got %', @schema@._shown_quoted(purge.args)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN @schema@._bulk_delete('purge', jsonb_strip_nulls(jsonb_build_object('kind', purge.kind, 'queue', purge.queue))
                                         || jsonb_build_object('args', purge.args));
END
$$;
COMMENT ON FUNCTION @schema@.purge IS
'Deletes the data of a user: every job, live or finished, whose args contain the given object, as delete_many() does.
args is a JSON object with one member or more. kind and queue restrict the jobs further; null: any.
Returns how many, executing jobs included. It reads all jobs unless both tables have an index for it: USING gin (args
jsonb_path_ops).
SQLSTATEs: 22023 args is wrong; 55P03 a job stayed locked for lock_timeout (10 s if that is not set).';
