-- A job that the database refuses stops no other.
--
-- A statement can fail on one job: a foreign key of the application refers to it, a trigger or an index of the application
-- raises an error, a value does not fit. Another session can hold a lock on its row. jobqd handles many jobs in one
-- statement, so one such job would stop them all. Its statements therefore come in two forms: the plain one for all jobs at
-- once, and one of the functions below, which finds the guilty job, leaves it out, and continues with the others. These
-- functions never wait for a locked row: they leave it for later. Those that jobqd calls are SECURITY DEFINER, so that its
-- role needs no other right.

-- A note that cannot be written is left out: it must not stop anything itself. A lock that is in the way once says nothing
-- about the job, so an earlier refusal stays as it was noted.
CREATE OR REPLACE FUNCTION @schema@._refuse(job_id bigint, doing text, state text, message text, outcome jsonb DEFAULT NULL,
    pause interval DEFAULT '1 minute') RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    fresh boolean;
BEGIN
    INSERT INTO @schema@.refusals AS r (job_id, doing, sqlstate, message, outcome, again_at)
    VALUES ($1, $2, $3, left($4, 1000), $5, clock_timestamp() + $6)
    ON CONFLICT ON CONSTRAINT refusals_pkey DO UPDATE
       SET tried_at = now(), again_at = excluded.again_at, outcome = coalesce(excluded.outcome, r.outcome),
           at = CASE WHEN r.sqlstate = '55P03' AND $3 <> '55P03' THEN now() ELSE r.at END,
           doing = CASE WHEN $3 = '55P03' THEN r.doing ELSE excluded.doing END,
           sqlstate = CASE WHEN $3 = '55P03' THEN r.sqlstate ELSE excluded.sqlstate END,
           message = CASE WHEN $3 = '55P03' THEN r.message ELSE excluded.message END
    RETURNING r.at = now() INTO fresh;
    RETURN fresh;
EXCEPTION WHEN OTHERS OR assert_failure THEN
    IF left(SQLSTATE, 2) IN ('25', '40', '53') THEN
        RAISE;
    END IF;
    RETURN true;
END
$$;
COMMENT ON FUNCTION @schema@._refuse IS 'Notes that the database refused a job; returns whether that is new.';

CREATE OR REPLACE FUNCTION @schema@._session_text(pid int, gid text DEFAULT NULL) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN $2 IS NOT NULL THEN 'prepared transaction ' || quote_literal($2)
                ELSE format('pid %s (%s)', $1,
                    (SELECT concat_ws(', ', 'application ' || nullif(a.application_name, ''), 'role ' || a.usename, a.state,
                            'transaction open since '
                            || to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
                       FROM pg_stat_activity a WHERE a.pid = $1)) END
$$;
COMMENT ON FUNCTION @schema@._session_text IS
    'A session in words: its pid, application and role, and since when its transaction is open.';

-- xmax is a transaction, or several of them.
CREATE OR REPLACE FUNCTION @schema@._holder_of(xmax xid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    holders xid[] := ARRAY[$1];
BEGIN
    IF NOT EXISTS (SELECT FROM pg_locks l WHERE l.transactionid = $1 AND l.granted) THEN
        BEGIN -- perhaps the number of a multixact
            holders := ARRAY(SELECT m.xid FROM pg_get_multixact_members($1) m);
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            RETURN NULL;
        END;
    END IF;
    RETURN (SELECT string_agg(@schema@._session_text(l.pid, p.gid), '; ')
              FROM pg_locks l
              LEFT JOIN pg_prepared_xacts p ON l.pid IS NULL AND p.transaction = l.transactionid
             WHERE l.locktype = 'transactionid' AND l.granted AND l.transactionid = ANY (holders)
               AND l.pid IS DISTINCT FROM pg_backend_pid());
END
$$;
COMMENT ON FUNCTION @schema@._holder_of IS
    'The sessions that hold a row''s lock, by the row''s xmax; null when they are gone.';

-- The lock is on one of our tables, else on the node's own row, which cannot be read while its table is locked.
CREATE OR REPLACE FUNCTION @schema@._lock_holders(node bigint) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '20ms' AS $$
#variable_conflict use_variable
DECLARE
    holders text;
BEGIN
    holders := (SELECT string_agg(format('%s is locked (%s) by %s', t.relname, t.mode, t.text), '; ')
           FROM (SELECT c.relname, l.mode, @schema@._session_text(l.pid, p.gid) AS text
                   FROM pg_locks l
                   JOIN pg_class c ON c.oid = l.relation
                   JOIN pg_namespace s ON s.oid = c.relnamespace AND s.nspname = '@channel@'
                   LEFT JOIN pg_prepared_xacts p ON l.pid IS NULL
                        AND EXISTS (SELECT FROM pg_locks x WHERE x.virtualtransaction = l.virtualtransaction
                                       AND x.locktype = 'transactionid' AND x.transactionid = p.transaction)
                  WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
                    AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
                    AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
                  ORDER BY l.mode, c.relname LIMIT 5) t);
    IF holders IS NULL THEN
        holders := (SELECT format('the row of this node is locked by %s', h.text)
                      FROM @schema@.nodes n CROSS JOIN LATERAL @schema@._holder_of(n.xmax) h (text)
                     WHERE n.id = node AND n.xmax <> '0' AND h.text IS NOT NULL AND h.text NOT LIKE '%application jobqd%');
    END IF;
    RETURN coalesce(holders, '');
EXCEPTION WHEN lock_not_available THEN
    RETURN '';
END
$$;
COMMENT ON FUNCTION @schema@._lock_holders IS
    'The sessions that hold a lock for which the statements of a node wait; empty: none.';

-- ---- the same for many jobs ----

-- This transaction has locked the rows. If the database refuses all jobs together, halves of them are tried, and so on,
-- until the guilty ones are found: these are left as they are, and noted. `what` is one of the functions _claim_these,
-- _stage_these, _expire_these, _release_these, _rescue_these, _adopt_these: it takes the ids and a node, and raises an error
-- unless it changed every one of these jobs. done: the ids that it changed. rest: the ids for which there was no room,
-- because more than 60 subtransactions slow down the snapshots of all sessions.
--
-- A statement can wait for a lock of the application (a trigger on jobs changes a row of its own tables). It waits once, and
-- briefly, because all of these rows are locked meanwhile. locked: the ids for which a lock was in the way. They are tried
-- again after a second, or later if there are too many of them, because they would otherwise be in front of all others
-- forever.
CREATE OR REPLACE FUNCTION @schema@._apart(what text, ids bigint[], node bigint, OUT done bigint[], OUT refused bigint[],
    OUT fresh bigint[], OUT messages text[], OUT rest bigint[], OUT locked bigint[])
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET lock_timeout = '100ms' AS $$
#variable_conflict use_variable
DECLARE
    most CONSTANT interval := '500 ms'; -- from the first lock on
    until timestamptz;
    pause interval;
    doing CONSTANT text := split_part(what, '_', 2);
    lows int[] := ARRAY[1];
    highs int[] := ARRAY[cardinality(ids)];
    low int;
    high int;
    middle int;
    used int := 0;
    text_of text;
BEGIN
    done := '{}';
    refused := '{}';
    fresh := '{}';
    messages := '{}';
    rest := '{}';
    locked := '{}';
    IF coalesce(cardinality(ids), 0) = 0 THEN
        RETURN;
    END IF;
    WHILE cardinality(lows) > 0 LOOP
        low := lows[cardinality(lows)];
        high := highs[cardinality(highs)];
        lows := lows[1 : cardinality(lows) - 1];
        highs := highs[1 : cardinality(highs) - 1];
        IF used >= 60 OR clock_timestamp() > until THEN
            rest := rest || ids[low : high];
            CONTINUE;
        END IF;
        BEGIN
            EXECUTE format('SELECT @schema@.%I($1, $2)', what) USING ids[low : high], node;
            SET CONSTRAINTS ALL IMMEDIATE;
            done := done || ids[low : high];
            used := used + 1;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            IF @schema@._is_passing(SQLSTATE) THEN
                RAISE;
            END IF;
            IF SQLSTATE = '55P03' AND until IS NULL THEN
                until := clock_timestamp() + most;
                PERFORM set_config('lock_timeout', '1ms', true); -- until the function ends
                pause := interval '1 second' + (SELECT count(*) FROM @schema@.refusals r WHERE r.sqlstate = '55P03')
                                               * interval '5 ms';
            END IF;
            IF low = high THEN
                text_of := left(SQLERRM, 1000);
                IF SQLSTATE = '55P03' THEN
                    locked := locked || ids[low];
                    PERFORM @schema@._refuse(ids[low], doing, SQLSTATE, text_of, NULL, pause);
                    CONTINUE;
                END IF;
                refused := refused || ids[low];
                messages := messages || text_of;
                IF @schema@._refuse(ids[low], doing, SQLSTATE, text_of) THEN
                    fresh := fresh || ids[low];
                    IF what <> '_claim_these' THEN -- the queue's own log reports claims
                        RAISE WARNING 'job %: the database refused to % it: %', ids[low], doing, text_of USING ERRCODE = '01JQ1';
                    END IF;
                END IF;
            ELSE
                middle := low + (high - low) / 2;
                lows := lows || ARRAY[middle + 1, low];
                highs := highs || ARRAY[high, middle];
            END IF;
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION @schema@._apart IS
    'Does one thing to jobs, all at once or in halves, and leaves out those that the database refuses.';

-- It is for _apart. A trigger or a rule of the application can keep jobs as they are without an error.
CREATE OR REPLACE FUNCTION @schema@._all_changed(changed bigint, ids bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
    IF changed < cardinality(ids) THEN
        RAISE EXCEPTION 'a trigger or rule on jobs keeps its row from being changed'
            USING ERRCODE = 'triggered_action_exception';
    END IF;
END
$$;
COMMENT ON FUNCTION @schema@._all_changed IS 'Raises an error if a statement changed fewer jobs than it was to change.';

CREATE OR REPLACE FUNCTION @schema@._claim_these(ids bigint[], node bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    changed bigint;
BEGIN
    WITH written AS (
        UPDATE @schema@.jobs j
           SET state = 'executing', attempt = j.attempt + 1, attempted_at = now(), attempted_by = $2
         WHERE j.id = ANY ($1)
        RETURNING j.state
    )
    SELECT count(*) INTO changed FROM written w WHERE w.state = 'executing';
    PERFORM @schema@._all_changed(changed, ids);
END
$$;
COMMENT ON FUNCTION @schema@._claim_these IS 'Claims these jobs for a node.';

-- A job that was refused within the last minute is passed over. args and meta are left out: they are fetched job by job. A
-- refused job comes back with the error of the database; fresh: it was not known before. At most 100 refused jobs come back;
-- the last one says how many more there are. A job with a lock of the application in the way comes back like one that was
-- known.
CREATE OR REPLACE FUNCTION @schema@._claim_apart(queue text, afters bigint[], node bigint, session bigint, priorities int[],
    uptos bigint[], most int)
RETURNS TABLE (id bigint, "position" bigint, priority smallint, attempt int, max_attempts int, timeout_ms int, kind text,
               args text, meta text, refusal text, fresh boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_sort = off
SET enable_bitmapscan = off AS $$
#variable_conflict use_variable
DECLARE
    until CONSTANT timestamptz := clock_timestamp() + interval '100 ms';
    looked bigint[] := '{}';
    claimed bigint[] := '{}';
    ids bigint[];
    here bigint[];
    size int := $7;
    a record;
    told jsonb := '[]'; -- refused: [id, message, fresh]
    untold bigint := 0; -- fresh ones beyond these
BEGIN
    PERFORM FROM @schema@.nodes n WHERE n.id = $3 AND n.session = $4 FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    LOOP
        ids := '{}';
        FOR i IN 1 .. cardinality($2) LOOP
            EXECUTE format($claim$
                SELECT ARRAY(SELECT l.id FROM @schema@.jobs l
                              WHERE l.queue = $1 AND l.priority = $2 AND l.position > $3 AND l.position <= $4
                                AND @claimable@
                                AND l.id <> ALL ($5)
                                AND NOT EXISTS (SELECT FROM @schema@.refusals r WHERE r.job_id = l.id AND r.again_at > now())
                              ORDER BY l.position
                              LIMIT %s
                                FOR UPDATE OF l SKIP LOCKED)$claim$, size - cardinality(ids))
               INTO here USING $1, $5[i]::smallint, $2[i], $6[i], looked;
            ids := ids || here;
            EXIT WHEN cardinality(ids) >= size;
        END LOOP;
        EXIT WHEN cardinality(ids) = 0;
        looked := looked || ids;
        a := @schema@._apart('_claim_these', ids, $3);
        claimed := claimed || a.done;
        IF jsonb_array_length(told) < 100 THEN
            told := told || coalesce((
                SELECT jsonb_agg(jsonb_build_array(u.id, u.message, u.fresh))
                  FROM (SELECT r.id, r.message, r.id = ANY (a.fresh) AS fresh FROM unnest(a.refused, a.messages) r (id, message)
                         UNION ALL
                        SELECT l.id, 'another session holds a lock it needs', false FROM unnest(a.locked) l (id)
                         ORDER BY fresh DESC LIMIT 100 - jsonb_array_length(told)) u), '[]');
        END IF;
        untold := untold + cardinality(a.fresh);
        -- Thousands of guilty jobs may be in front. So while it has claimed nothing it looks further, for a while, and at
        -- many jobs at a time, although it may then claim some more than were wanted.
        EXIT WHEN cardinality(claimed) > 0 OR clock_timestamp() > until;
        size := greatest($7, 50);
    END LOOP;
    RETURN QUERY
        SELECT j.id, j.position, j.priority, j.attempt, j.max_attempts, j.timeout_ms, j.kind, NULL::text, NULL::text,
               NULL::text, false
          FROM @schema@.jobs j WHERE j.id = ANY (claimed);
    untold := untold - jsonb_array_length(jsonb_path_query_array(told, 'strict $[*][2] ? (@ == true)'));
    RETURN QUERY
        SELECT j.id, j.position, j.priority, j.attempt, j.max_attempts, j.timeout_ms, j.kind, NULL::text, NULL::text,
               (u.it ->> 1) || CASE WHEN untold > 0 AND u.nth = jsonb_array_length(told)
                                    THEN format(' (and %s more jobs)', untold) ELSE '' END,
               (u.it -> 2)::boolean
          FROM jsonb_array_elements(told) WITH ORDINALITY u (it, nth)
          JOIN @schema@.jobs j ON j.id = ANY (ARRAY[(u.it ->> 0)::bigint]);
END
$$;
COMMENT ON FUNCTION @schema@._claim_apart IS
    'Claims jobs as claim_aged.sql does, and leaves those that the database refuses.';

CREATE OR REPLACE FUNCTION @schema@._stage_these(ids bigint[], node bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off AS $$
#variable_conflict use_variable
DECLARE
    changed bigint;
BEGIN
    WITH written AS (
        UPDATE @schema@.jobs j
           SET state = 'available', position = @schema@._next_position()
          FROM unnest($1) WITH ORDINALITY due (id, nth)
         WHERE j.id = ANY (ARRAY[due.id])
        RETURNING j.state
    )
    SELECT count(*) INTO changed FROM written w WHERE w.state = 'available';
    PERFORM @schema@._all_changed(changed, ids);
END
$$;
COMMENT ON FUNCTION @schema@._stage_these IS 'Makes these due jobs available.';

-- staged: how many. in_ms: how long until the next job is due; 0: now, -1: no job waits for its time.
CREATE OR REPLACE FUNCTION @schema@._stage(OUT staged bigint, OUT in_ms bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_sort = off AS $$
#variable_conflict use_variable
DECLARE
    due bigint[];
    woken text[];
BEGIN
    due := ARRAY(SELECT j.id
                   FROM @schema@.jobs j
                  WHERE j.position IS NULL AND j.scheduled_at <= now() AND j.state IN ('scheduled', 'retryable')
                    AND NOT EXISTS (SELECT FROM @schema@.refusals r
                                     WHERE r.job_id = j.id AND r.again_at > now())
                  ORDER BY j.scheduled_at
                  LIMIT 1000
                    FOR UPDATE OF j SKIP LOCKED);
    IF cardinality(due) > 0 THEN
        due := (@schema@._apart('_stage_these', due, NULL)).done;
        woken := ARRAY(SELECT DISTINCT j.queue FROM @schema@.jobs j WHERE j.id = ANY (due));
        PERFORM @schema@._wake(woken);
    END IF;
    staged := cardinality(due);
    in_ms := coalesce((SELECT greatest(0, ceil(extract(epoch FROM j.scheduled_at - clock_timestamp()) * 1000))
                         FROM @schema@.jobs j
                        WHERE j.position IS NULL AND j.state IN ('scheduled', 'retryable')
                          AND NOT EXISTS (SELECT FROM @schema@.refusals r WHERE r.job_id = j.id AND r.again_at > now())
                          AND j.scheduled_at < 'infinity'
                        ORDER BY j.scheduled_at
                        LIMIT 1), -1);
END
$$;
COMMENT ON FUNCTION @schema@._stage IS
    'The stager: makes up to 1000 due jobs available, the oldest first, and wakes the nodes that wait for them.';

CREATE OR REPLACE FUNCTION @schema@._expire_these(ids bigint[], node bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
    PERFORM @schema@._all_changed(@schema@._expire_ids(ids), ids);
END
$$;
COMMENT ON FUNCTION @schema@._expire_these IS 'Cancels these expired jobs.';

-- A job that the database refuses to end is passed over, and tried again every minute. since: jobs that expired before then
-- are passed over. found_now: how many; with 1000 there may be more. stories: of the jobs that ended.
CREATE OR REPLACE FUNCTION @schema@._expire(since timestamptz, OUT found_now int, OUT stories jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_sort = off AS $$
#variable_conflict use_variable
DECLARE
    due bigint[];
BEGIN
    due := ARRAY(SELECT j.id
                   FROM @schema@.jobs j
                  WHERE j.expires_at <= now() AND j.expires_at >= since AND j.attempt = 0
                    AND j.state IN ('scheduled', 'available', 'retryable', 'suspended')
                    AND NOT EXISTS (SELECT FROM @schema@.refusals r
                                     WHERE r.job_id = j.id AND r.again_at > now())
                  ORDER BY j.expires_at
                  LIMIT 1000
                    FOR UPDATE OF j SKIP LOCKED);
    found_now := cardinality(due);
    IF found_now = 0 THEN
        RETURN;
    END IF;
    stories := (SELECT jsonb_object_agg(j.id, @schema@._story(j.id, j.kind, j.queue, 0, j.max_attempts, 'cancelled', NULL,
                       jsonb_build_object('kind', 'expired', 'error', 'not started by '
                           || to_char(j.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')),
                       @schema@._is_hooks(j.meta)))
                  FROM @schema@.jobs j WHERE j.id = ANY (due));
    stories := (SELECT jsonb_agg(stories -> d.id::text) FROM unnest((@schema@._apart('_expire_these', due, NULL)).done) d (id));
END
$$;
COMMENT ON FUNCTION @schema@._expire IS 'Cancels up to 1000 jobs that have not begun by their expires_at.';

CREATE OR REPLACE FUNCTION @schema@._expire_jobs(since timestamptz DEFAULT '-infinity') RETURNS int
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT (@schema@._expire(since)).found_now
$$;
COMMENT ON FUNCTION @schema@._expire_jobs IS 'Does the same as _expire; returns how many expired jobs it found.';

-- cancelled: how many jobs were cancelled, because their attempt had ended when the request came. stories: see
-- _settle_again. A locked row is left for the next sweep, without a warning.
CREATE OR REPLACE FUNCTION @schema@._sweep(OUT cancelled int, OUT stories jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    part text;
BEGIN
    cancelled := 0;
    FOREACH part IN ARRAY '{_cancel_again,_sweep_progress,_settle_again}'::text[] LOOP
        BEGIN
            CASE part
                WHEN '_cancel_again' THEN cancelled := @schema@._cancel_again();
                WHEN '_sweep_progress' THEN PERFORM @schema@._sweep_progress();
                WHEN '_settle_again' THEN stories := (@schema@._settle_again()).stories;
            END CASE;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            IF @schema@._is_passing(SQLSTATE) THEN
                RAISE;
            END IF;
            IF SQLSTATE <> '55P03' THEN
                RAISE WARNING 'housekeeping: the database refused %: %', part, left(SQLERRM, 1000) USING ERRCODE = '01JQ1';
            END IF;
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION @schema@._sweep IS 'The leader''s sweep, in parts that do not stop one another.';

CREATE OR REPLACE FUNCTION @schema@._release_these(ids bigint[], node bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    changed bigint;
BEGIN
    WITH written AS (
        UPDATE @schema@.jobs j
           SET state = 'available', position = @schema@._next_position(), attempt = j.attempt - 1
         WHERE j.id = ANY ($1) AND j.state = 'executing' AND j.attempted_by = $2
        RETURNING j.state
    )
    SELECT count(*) INTO changed FROM written w WHERE w.state = 'available';
    PERFORM @schema@._all_changed(changed, ids);
END
$$;
COMMENT ON FUNCTION @schema@._release_these IS 'Makes these jobs of a node available again; their attempts do not count.';

-- These are claims whose answer was lost with the connection. They never started, so the attempt does not count. only_these:
-- only these claims, which an earlier call has left; null: it reads the whole table. released: how many. remaining: the jobs
-- that are locked or refused, an object of their ids and of when each was claimed. That time identifies a claim: a job that
-- was given back and that the same node has claimed again has the same attempt once more, and runs.
CREATE OR REPLACE FUNCTION @schema@._release(node bigint, held bigint[], only_these jsonb, OUT released bigint, OUT remaining jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    theirs jsonb;
    free bigint[];
BEGIN
    IF only_these IS NULL THEN
        theirs := (SELECT jsonb_object_agg(j.id, j.attempted_at) FROM @schema@.jobs j
                    WHERE j.state = 'executing' AND j.attempted_by = node AND j.id <> ALL (held));
    ELSE
        theirs := (SELECT jsonb_object_agg(j.id, j.attempted_at)
                     FROM jsonb_each_text(only_these) o
                     JOIN @schema@.jobs j ON j.id = ANY (ARRAY[o.key::bigint]) AND j.attempted_at IS NOT DISTINCT FROM o.value::timestamptz
                    WHERE j.state = 'executing' AND j.attempted_by = node);
    END IF;
    theirs := coalesce(theirs, '{}');
    free := ARRAY(SELECT j.id
                    FROM jsonb_each_text(theirs) o
                    JOIN @schema@.jobs j ON j.id = ANY (ARRAY[o.key::bigint]) AND j.attempted_at IS NOT DISTINCT FROM o.value::timestamptz
                   WHERE j.state = 'executing' AND j.attempted_by = node
                     FOR UPDATE OF j SKIP LOCKED);
    free := (@schema@._apart('_release_these', free, node)).done;
    released := cardinality(free);
    remaining := theirs - free::text[];
END
$$;
COMMENT ON FUNCTION @schema@._release IS 'Gives back the jobs that the database says a node holds, and the node does not.';

-- A job becomes available, with an entry in errors, or it ends: discarded without attempts left, cancelled if jobq.cancel
-- was called for it.
CREATE OR REPLACE FUNCTION @schema@._rescue_these(ids bigint[], node bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    changed bigint;
BEGIN
    WITH orphans AS MATERIALIZED (
        SELECT j.id, asked.yes AS asked, asked.forget,
               CASE WHEN asked.yes THEN 'cancelled'
                    WHEN j.attempt < j.max_attempts THEN 'available'
                    ELSE 'discarded' END::@schema@.job_state AS next,
               @schema@._orphaned(j.attempt, j.attempted_at, j.attempted_by)
               || jsonb_build_object('attempt', j.attempt, 'at', now())
               || CASE WHEN asked.yes THEN '{"cancelled": "by request"}' ELSE '{}' END::jsonb AS entry
          FROM @schema@.jobs j
         CROSS JOIN LATERAL (
                SELECT count(*) > 0 AS yes, coalesce(bool_or(c.forget), false) AS forget
                  FROM @schema@._cancels c
                 WHERE c.job_id = j.id AND c.attempt = j.attempt AND (c.node_id = j.attempted_by OR c.node_id < 0)) asked
         WHERE j.id = ANY ($1) AND j.state = 'executing'
    ), again AS (
        UPDATE @schema@.jobs j
           SET state = 'available', position = @schema@._next_position(), errors = @schema@._add_error(j.errors, o.entry)
          FROM orphans o
         WHERE j.id = ANY (ARRAY[o.id]) AND o.next = 'available'
        RETURNING 1
    ), ended AS (
        DELETE FROM @schema@.jobs j
         USING orphans o
         WHERE j.id = ANY (ARRAY[o.id]) AND o.next <> 'available'
        RETURNING @job_columns_of_j@,
                  @schema@._add_error(j.errors, o.entry) AS all_errors, o.next, o.forget
    ), kept AS (
        INSERT INTO @schema@.finished_jobs
               (@job_columns@, errors, finished_at, state)
        SELECT @job_columns@, all_errors, now(), next
          FROM ended
         WHERE NOT forget
    ), answered AS (
        DELETE FROM @schema@._cancels c USING orphans o WHERE o.asked AND c.job_id = ANY (ARRAY[o.id])
    )
    SELECT (SELECT count(*) FROM again) + (SELECT count(*) FROM ended) INTO changed;
    PERFORM @schema@._all_changed(changed, ids);
END
$$;
COMMENT ON FUNCTION @schema@._rescue_these IS 'Makes these orphaned jobs available again, or ends them.';

CREATE OR REPLACE FUNCTION @schema@._orphaned(attempt int, attempted_at timestamptz, node bigint) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('claimed_at', attempted_at, 'node', n.name, 'kind', 'orphaned',
                              'error', format('node %s died while it held the job', n.name))
      FROM (SELECT coalesce((SELECT regexp_replace(n.name, '^removed-[0-9]+ ', '') FROM @schema@.nodes n WHERE n.id = $3),
                            $3::text) AS name) n
$$;
COMMENT ON FUNCTION @schema@._orphaned IS 'The entry in errors of a job whose node ended while it held the job.';

-- A job whose row is locked, or that the database refuses to change, is left for the next call (every few seconds). The row
-- of its node stays for it under another name, so that a new node can have the name. removed, name: how many nodes, and the
-- name of the first. again, ended: how many jobs are available again, and how many were discarded or cancelled. remaining:
-- how many jobs are left; note names the first of them. stories: of at most 1000 jobs that are available again or were
-- discarded.
CREATE OR REPLACE FUNCTION @schema@._rescue(OUT removed bigint, OUT again bigint, OUT ended bigint, OUT remaining bigint,
    OUT name text, OUT note text, OUT stories jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    dead bigint[] := ARRAY(SELECT n.id FROM @schema@.nodes n WHERE n.session = -1 ORDER BY n.id LIMIT 100);
    theirs bigint[];
    free bigint[];
    a record;
    job record;
    left_over bigint[];
    still bigint[]; -- nodes that still hold jobs
BEGIN
    removed := 0;
    again := 0;
    ended := 0;
    remaining := 0;
    IF cardinality(dead) = 0 THEN
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM @schema@._leader l WHERE l.node_id = ANY (dead) AND l.expires_at > clock_timestamp()) THEN
        PERFORM @schema@._notify('leader'); -- which is free now
    END IF;
    theirs := ARRAY(SELECT j.id FROM @schema@.jobs j WHERE j.state = 'executing' AND j.attempted_by = ANY (dead));
    free := ARRAY(SELECT j.id FROM @schema@.jobs j
                   WHERE j.id = ANY (theirs) AND j.state = 'executing' AND j.attempted_by = ANY (dead)
                     FOR UPDATE SKIP LOCKED);
    stories := (SELECT jsonb_object_agg(f.id, f.story) || jsonb_build_object('untold', greatest(max(f.n) - 1000, 0))
                  FROM (SELECT j.id, count(*) OVER () AS n, @schema@._story(j.id, j.kind, j.queue, j.attempt, j.max_attempts,
                                   CASE WHEN j.attempt < j.max_attempts THEN 'available' ELSE 'discarded' END, NULL,
                                   @schema@._orphaned(j.attempt, j.attempted_at, j.attempted_by), @schema@._is_hooks(j.meta)) AS story
                          FROM @schema@.jobs j
                         WHERE j.id = ANY (free)
                           AND NOT EXISTS (SELECT FROM @schema@._cancels c WHERE c.job_id = j.id AND c.attempt = j.attempt
                                              AND (c.node_id = j.attempted_by OR c.node_id < 0))
                         ORDER BY j.attempt < j.max_attempts, j.id -- discards first
                         LIMIT 1000) f);
    a := @schema@._apart('_rescue_these', free, NULL);
    stories := coalesce((SELECT jsonb_agg(stories -> d.id::text) FROM unnest(a.done) d (id) WHERE stories ? d.id::text), '[]')
               || CASE WHEN (stories -> 'untold')::int > 0
                       THEN jsonb_build_array(jsonb_build_object('untold', stories -> 'untold')) ELSE '[]' END;
    again := (SELECT count(*) FROM @schema@.jobs j WHERE j.id = ANY (a.done));
    ended := cardinality(a.done) - again;
    PERFORM @schema@._wake(ARRAY(SELECT DISTINCT j.queue FROM @schema@.jobs j WHERE j.id = ANY (a.done)));
    FOR job IN
        SELECT j.id, j.attempt, u.message, r.sqlstate, @schema@._orphaned(j.attempt, j.attempted_at, j.attempted_by) AS entry
          FROM unnest(a.refused, a.messages) u (id, message)
          JOIN @schema@.jobs j ON j.id = ANY (ARRAY[u.id])
          LEFT JOIN @schema@.refusals r ON r.job_id = u.id
         LIMIT 50
    LOOP
        IF @schema@._park(job.id, job.attempt, job.entry, 'rescue', coalesce(job.sqlstate, 'XX000'), job.message,
                          jsonb_build_object('attempt', job.attempt, 'outcome', 'failed', 'delay_ms', 0, 'entry', job.entry)) THEN
            note := coalesce(note, format('job %s: %s', job.id, job.message));
        END IF;
    END LOOP;

    left_over := ARRAY(SELECT j.id FROM @schema@.jobs j
                        WHERE j.id = ANY (theirs) AND j.state = 'executing' AND j.attempted_by = ANY (dead));
    remaining := cardinality(left_over);
    still := ARRAY(SELECT DISTINCT j.attempted_by FROM @schema@.jobs j WHERE j.id = ANY (left_over));
    IF remaining > 0 THEN
        SELECT format('job %s: %s', j.id, coalesce((SELECT u.message FROM unnest(a.refused, a.messages) u (id, message)
                                                     WHERE u.id = j.id),
                                                   CASE WHEN j.id = ANY (a.rest) THEN 'left for the next call'
                                                        WHEN j.id = ANY (a.locked) THEN 'another session holds a lock it needs'
                                                   END,
                                                   'its row is locked by ' || @schema@._holder_of(j.xmax), 'its row is locked'))
          INTO note -- jobs without room come last, as they say the least
          FROM @schema@.jobs j WHERE j.id = ANY (left_over) ORDER BY j.id = ANY (a.rest), j.id LIMIT 1;
    END IF;
    FOR a IN SELECT n.id, n.name FROM @schema@.nodes n WHERE n.id = ANY (dead) ORDER BY n.id LIMIT 50 LOOP
        BEGIN
            IF a.id <> ALL (still) THEN
                DELETE FROM @schema@.nodes n WHERE n.id = a.id;
                SET CONSTRAINTS ALL IMMEDIATE;
                removed := removed + 1;
                name := coalesce(name, a.name);
                CONTINUE;
            END IF;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            IF @schema@._is_passing(SQLSTATE) THEN
                RAISE;
            END IF;
            note := coalesce(note, format('the row of node %s: %s', a.name, left(SQLERRM, 1000)));
        END;
        BEGIN
            UPDATE @schema@.nodes n SET name = format('removed-%s %s', n.id, n.name), host = '-', pid = 0, pid_start = 0
             WHERE n.id = a.id AND n.host <> '-';
            DELETE FROM @schema@._idle i WHERE i.node_id = a.id;
            SET CONSTRAINTS ALL IMMEDIATE;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            IF @schema@._is_passing(SQLSTATE) THEN
                RAISE;
            END IF;
            note := coalesce(note, format('the row of node %s: %s', a.name, left(SQLERRM, 1000)));
        END;
    END LOOP;
    BEGIN
        DELETE FROM @schema@._idle i WHERE i.node_id = ANY (dead);
    EXCEPTION WHEN OTHERS OR assert_failure THEN
        IF @schema@._is_passing(SQLSTATE) THEN
            RAISE;
        END IF;
    END;
END
$$;
COMMENT ON FUNCTION @schema@._rescue IS
    'The lifeline, second step: gives back the jobs of the nodes that reap_mark.sql marked, and removes these nodes.';

CREATE OR REPLACE FUNCTION @schema@._adopt_these(ids bigint[], node bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_variable
DECLARE
    changed bigint;
BEGIN
    WITH written AS (
        UPDATE @schema@.jobs j SET attempted_by = $2 WHERE j.id = ANY ($1) RETURNING j.attempted_by
    )
    SELECT count(*) INTO changed FROM written w WHERE w.attempted_by = $2;
    PERFORM @schema@._all_changed(changed, ids);
END
$$;
COMMENT ON FUNCTION @schema@._adopt_these IS 'Gives these jobs to a node.';

-- The row was deleted by hand. Session -2 shuts the node out, and the lifeline buries it like any other once its lease must
-- have expired. An executing job that names no node (an UPDATE by hand) is first given to node -1, which never exists. This
-- reads the whole table.
CREATE OR REPLACE FUNCTION @schema@._strays(lease_ms bigint) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    stray bigint;
    held bigint;
    first bigint;
    found_now int := 0;
BEGIN
    PERFORM @schema@._apart('_adopt_these', ARRAY(
        SELECT j.id FROM @schema@.jobs j WHERE j.state = 'executing' AND j.attempted_by IS NULL
           FOR UPDATE SKIP LOCKED), -1);
    FOR stray, held, first IN
        SELECT j.attempted_by, count(*), min(j.id)
          FROM @schema@.jobs j
         WHERE j.state = 'executing' AND j.attempted_by IS NOT NULL
           AND NOT EXISTS (SELECT FROM @schema@.nodes n WHERE n.id = j.attempted_by)
         GROUP BY j.attempted_by
         LIMIT 50
    LOOP
        BEGIN
            INSERT INTO @schema@.nodes (id, session, name, host, pid, pid_start, version, expires_at)
                   OVERRIDING SYSTEM VALUE
            VALUES (stray, -2, format('removed-%s', stray), '-', 0, 0, '-',
                    clock_timestamp() + lease_ms * interval '1 millisecond')
                ON CONFLICT DO NOTHING;
            SET CONSTRAINTS ALL IMMEDIATE;
            found_now := found_now + 1;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            IF @schema@._is_passing(SQLSTATE) THEN
                RAISE;
            END IF;
            RAISE WARNING 'job % is held by node % (% such jobs in all), which has no row, and the database refuses to '
                          'insert one: %',
                first, stray, held, left(SQLERRM, 1000) USING ERRCODE = '01JQ1';
        END;
    END LOOP;
    RETURN found_now;
END
$$;
COMMENT ON FUNCTION @schema@._strays IS
    'Gives nodes that hold jobs but have no row a new one, so that the lifeline finds them; returns how many.';
