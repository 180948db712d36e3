-- Retention. Partitions of a day are dropped whole. Rows that expire sooner are deleted from them, by state and by queue. A
-- past day gets no more rows, so a partition from which a rule has deleted all that it ever will is not read again:
-- `_pruned` says so. The others are read page by page, some pages a call.

-- A partition is made as a table and then attached, which takes no ACCESS EXCLUSIVE lock on the parents. The rows of that
-- day in the default partition move over in the same transaction. SECURITY DEFINER: only the owner may do this, and jobqd
-- need not be the owner. Default privileges may have given the new table to PUBLIC or to a role of ours, so they are
-- revoked.
CREATE OR REPLACE FUNCTION @schema@._create_partitions(from_day date, days int) RETURNS int
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
        RAISE EXCEPTION 'jobq._create_partitions: from_day must be a date, got %', coalesce(from_day::text, 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF days IS NULL OR days NOT BETWEEN 0 AND 366 THEN
        RAISE EXCEPTION 'jobq._create_partitions: days must be 0 to 366, got %', coalesce(days::text, 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR parent, day IN
        SELECT p.name, from_day + n.n
          FROM unnest(ARRAY['_finished_completed', '_finished_failed']) p (name), generate_series(0, days - 1) n (n)
    LOOP
        partition := parent || to_char(day, '"_p"YYYYMMDD');
        CONTINUE WHEN to_regclass(format('@schema@.%I', partition)) IS NOT NULL;
        BEGIN
            -- One session at a time makes partitions. ATTACH locks the default partition in the end anyway. It is locked
            -- from the start, so that nothing enters it after the move, and no lock is raised.
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
            RAISE WARNING 'cannot create history partition %, its jobs go to the default partition: %', partition, left(SQLERRM, 1000)
                USING ERRCODE = '01JQ1';
        END;
    END LOOP;
    RETURN made;
END
$$;
COMMENT ON FUNCTION @schema@._create_partitions IS
    'Makes the missing partitions of `days` days from from_day on; returns how many.';

-- A partition that cannot be dropped, because an object of the application depends on it, is named in a warning, and the
-- next one is dropped. Rows that cannot be deleted are named in a warning as well. A partition that another session reads (a
-- dump) is left. Returns 1 when there is more to do in another transaction: a DROP locks the parent until the commit.
-- Returns -1 when something was locked, and a later call is needed; else 0. SECURITY DEFINER, as above.
CREATE OR REPLACE FUNCTION @schema@._drop_partitions(keep_completed interval, keep_failed interval) RETURNS int
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
        RAISE EXCEPTION 'jobq._drop_partitions: keep_completed must be an interval of 0 or more, got %',
            coalesce(keep_completed::text, 'null') USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF keep_failed IS NULL OR keep_failed < interval '0' THEN
        RAISE EXCEPTION 'jobq._drop_partitions: keep_failed must be an interval of 0 or more, got %',
            coalesce(keep_failed::text, 'null') USING ERRCODE = 'invalid_parameter_value';
    END IF;

    old_partitions := ARRAY(
        SELECT c.relname
          FROM pg_inherits i
          JOIN pg_class c ON c.oid = i.inhrelid
          JOIN (VALUES ('@schema@._finished_completed'::regclass, now() - keep_completed),
                       ('@schema@._finished_failed'::regclass, now() - keep_failed)) AS k (parent, oldest_kept)
            ON k.parent = i.inhparent
         WHERE c.relname ~ '^_finished_(completed|failed)_p[0-9]{8}$'
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
                PERFORM set_config('lock_timeout', '1ms', true); -- do not wait for the next lock
            ELSE
                RAISE WARNING 'history partition % has expired, but cannot be dropped: %', partition, left(SQLERRM, 1000)
                    USING ERRCODE = '01JQ1';
            END IF;
        END;
    END LOOP;

    FOR parent, oldest_kept IN
        SELECT k.parent, k.oldest_kept
          FROM (VALUES ('_finished_completed', now() - keep_completed),
                       ('_finished_failed', now() - keep_failed)) AS k (parent, oldest_kept)
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
COMMENT ON FUNCTION @schema@._drop_partitions IS
    'Drops the oldest partition beyond its keep; if there is none, deletes rows that old from the default partitions.';

-- Where nodes differ, the longest time and the greatest count win; a node that sets nothing keeps all.
CREATE OR REPLACE FUNCTION @schema@._queues_retention() RETURNS jsonb
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
COMMENT ON FUNCTION @schema@._queues_retention IS 'The retention that the living nodes declare for their queues.';

CREATE OR REPLACE FUNCTION @schema@._history_parts(OUT name text, OUT completed boolean, OUT low timestamptz, OUT high timestamptz)
RETURNS SETOF record LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.relname, i.inhparent = '@schema@._finished_completed'::regclass,
           CASE WHEN d.day IS NULL THEN '-infinity' ELSE d.day AT TIME ZONE 'UTC' END,
           CASE WHEN d.day IS NULL THEN 'infinity' ELSE (d.day + interval '1 day') AT TIME ZONE 'UTC' END
      FROM pg_inherits i
      JOIN pg_class c ON c.oid = i.inhrelid
     CROSS JOIN LATERAL (SELECT CASE WHEN c.relname ~ '_p[0-9]{8}$'
                                     THEN to_date(right(c.relname, 8), 'YYYYMMDD')::timestamp END AS day) d
     WHERE i.inhparent IN ('@schema@._finished_completed'::regclass, '@schema@._finished_failed'::regclass)
$$;
COMMENT ON FUNCTION @schema@._history_parts IS 'The partitions of the history, with the times that they may hold.';

-- It reads only the newest days, as many as it takes.
CREATE OR REPLACE FUNCTION @schema@._newest_end(queue text, n bigint, OUT at timestamptz, OUT id bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    bounds timestamptz[] := ARRAY(SELECT DISTINCT b FROM @schema@._history_parts() p, unnest(ARRAY[p.low, p.high]) b ORDER BY b DESC);
    rest bigint := n;
    here bigint;
    slice text;
BEGIN
    FOR i IN 1 .. cardinality(bounds) - 1 LOOP
        slice := format('FROM @schema@.finished_jobs j WHERE j.queue = %L AND j.finished_at >= %L AND j.finished_at < %L',
                        queue, @schema@._iso(bounds[i + 1]), @schema@._iso(bounds[i]));
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
COMMENT ON FUNCTION @schema@._newest_end IS 'The finished_at and the id of the last of the newest n jobs of a queue.';

-- policy: {"cancelled_ms", "discarded_ms", "queues": {NAME: {"completed_ms", "failed_ms", "count"}}}, each of which may be
-- absent.
CREATE OR REPLACE FUNCTION @schema@._prune_rules(policy jsonb) RETURNS jsonb
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
          FROM q CROSS JOIN LATERAL @schema@._newest_end(q.queue, (q.rule ->> 'count')::bigint) n
         WHERE (q.rule ->> 'count')::bigint > 0
    )
    SELECT coalesce(jsonb_agg(to_jsonb(r)), '[]') FROM r WHERE r.at IS NOT NULL
$$;
COMMENT ON FUNCTION @schema@._prune_rules IS 'A retention policy as a list of rules.';

-- Returns 1 when there is more to do in another transaction; 0 when the round is over, or another session prunes. The next
-- call begins the next round. It waits for no row: it passes over a row that another session is about to retry or delete, a
-- partition that is locked, and rows that the database refuses to delete. The next round comes back to these.
CREATE OR REPLACE FUNCTION @schema@._prune_history(policy jsonb, pages int) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $$
#variable_conflict use_variable
DECLARE
    tries CONSTANT int := 20; -- windows without a row to delete that one call reads
    round @schema@._pruning;
    part record;
    file_pages bigint;
    due bigint; -- how many rows of the window are to be deleted
    gone record;
    old_rows tid[];
BEGIN
    IF policy IS NULL OR jsonb_typeof(policy) <> 'object' THEN
        RAISE EXCEPTION 'jobq._prune_history: policy must be a JSON object, got %', @schema@._shown_quoted(policy)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF pages IS NULL OR pages < 1 THEN
        RAISE EXCEPTION 'jobq._prune_history: pages must be 1 or more, got %', coalesce(pages::text, 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT EXISTS (SELECT FROM @schema@._pruning) THEN -- otherwise it would wait for an update under way
        INSERT INTO @schema@._pruning (policy) VALUES (_prune_history.policy) ON CONFLICT DO NOTHING;
    END IF;
    SELECT * INTO round FROM @schema@._pruning FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    IF cardinality(round.todo) = 0 OR round.policy <> policy THEN
        round.policy := policy;
        round.rules := @schema@._prune_rules(policy);
        round.next_page := 0;
        round.left_some := false;
        DELETE FROM @schema@._pruned d WHERE NOT EXISTS (SELECT FROM @schema@._history_parts() p WHERE p.name = d.partition);
        round.todo := ARRAY(
            SELECT DISTINCT p.name
              FROM @schema@._history_parts() p, jsonb_to_recordset(round.rules) r (rule text, states jsonb, at timestamptz)
             WHERE p.low <= r.at AND (r.states ? 'completed' AND p.completed
                                      OR r.states ?| '{cancelled,discarded}' AND NOT p.completed)
                   AND NOT EXISTS (SELECT FROM @schema@._pruned d WHERE d.partition = p.name AND d.rule = r.rule)
             ORDER BY p.name);
    END IF;
    FOR try IN 1 .. tries LOOP
        EXIT WHEN cardinality(round.todo) = 0;
        SELECT * INTO part FROM @schema@._history_parts() p WHERE p.name = round.todo[1];
        IF NOT FOUND THEN -- dropped in the meantime
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
                'AND (f.finished_at, f.id) < (r.at, r.id))) '
                'SELECT ARRAY(SELECT t.ctid FROM @schema@.%1$I t WHERE t.ctid = ANY (ARRAY(SELECT f.ctid FROM f)) '
                'FOR UPDATE OF t SKIP LOCKED), (SELECT count(*) FROM f)', part.name,
                format('(%s,0)', round.next_page),
                format('(%s,0)', least(round.next_page + pages, 4294967295)))
               INTO old_rows, due USING round.rules;
        EXCEPTION WHEN lock_not_available THEN
            round.todo := round.todo[2:];
            round.next_page := 0;
            round.left_some := false;
            PERFORM set_config('lock_timeout', '1ms', true); -- do not wait for the next lock
            CONTINUE;
        END;
        gone := @schema@._delete_apart(part.name, old_rows);
        EXIT WHEN gone.untried AND gone.deleted > 0; -- read the same pages once more
        round.left_some := gone.deleted < due OR round.left_some;
        round.next_page := round.next_page + pages;
        IF round.next_page >= file_pages THEN
            INSERT INTO @schema@._pruned (partition, rule)
            SELECT part.name, r.rule FROM jsonb_to_recordset(round.rules) r (rule text, at timestamptz)
             WHERE r.at >= part.high AND part.high < now() AND NOT round.left_some
                ON CONFLICT DO NOTHING;
            round.todo := round.todo[2:];
            round.next_page := 0;
            round.left_some := false;
        END IF;
        EXIT WHEN gone.deleted > 0;
    END LOOP;
    UPDATE @schema@._pruning p
       SET policy = round.policy, rules = round.rules, todo = round.todo, next_page = round.next_page, left_some = round.left_some;
    RETURN CASE WHEN cardinality(round.todo) > 0 THEN 1 ELSE 0 END;
END
$$;
COMMENT ON FUNCTION @schema@._prune_history IS
    'Deletes from the history the rows that the policy does not keep; reads at least `pages` pages.';
