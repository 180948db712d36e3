-- jobq, migration 3: the history's partitions of a day each, made ahead and dropped when they are past their time.
--
-- finished_completed_pYYYYMMDD and finished_failed_pYYYYMMDD, by UTC days. Acks go on meanwhile: what they need
-- (the parents, the default partitions) is locked for as long as lock_timeout allows at most, and then the
-- function fails with 55P03 (lock_not_available), to be called again later.

-- Makes the partitions that are missing of `days` days from from_day on; returns how many. A partition is made as a
-- table and then attached, which takes no ACCESS EXCLUSIVE lock on the parents. What the default
-- partition holds of that day moves over in the same transaction.
CREATE FUNCTION @schema@.create_partitions(from_day date, days int) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO'
SET lock_timeout = '200ms' AS $$
DECLARE
    made int := 0;
    parent text;
    partition text;
    day date;
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
        -- One maker at a time. The default partition is locked in the end by ATTACH anyway: from the start, so
        -- that nothing comes into it behind the move, and no lock is raised.
        EXECUTE format('LOCK TABLE ONLY @schema@.%I IN SHARE UPDATE EXCLUSIVE MODE', parent);
        CONTINUE WHEN to_regclass(format('@schema@.%I', partition)) IS NOT NULL;
        EXECUTE format('LOCK TABLE @schema@.%I IN ACCESS EXCLUSIVE MODE', parent || '_default');
        EXECUTE format('CREATE TABLE @schema@.%I (LIKE @schema@.%I INCLUDING ALL)', partition, parent);
        EXECUTE format('ALTER TABLE @schema@.%I REPLICA IDENTITY FULL', partition);
        EXECUTE format('WITH moved AS (DELETE FROM @schema@.%I WHERE finished_at >= %L AND finished_at < %L RETURNING *) '
                       'INSERT INTO @schema@.%I SELECT * FROM moved',
                       parent || '_default', day::timestamptz, (day + 1)::timestamptz, partition);
        EXECUTE format('ALTER TABLE @schema@.%I ATTACH PARTITION @schema@.%I FOR VALUES FROM (%L) TO (%L)',
                       parent, partition, day::timestamptz, (day + 1)::timestamptz);
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;

-- Drops the oldest partition that ended before its keep, or, when there is none, deletes up to 10,000 rows that old
-- from the default partitions. Returns 1 when there is more to do, in another transaction, else 0: a DROP
-- locks the parent until the commit.
CREATE FUNCTION @schema@.drop_partitions(keep_completed interval, keep_failed interval) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO'
SET lock_timeout = '200ms' AS $$
DECLARE
    batch CONSTANT int := 10000;
    old_partitions text[];
    parent text;
    oldest_kept timestamptz;
    deleted int;
    more int := 0;
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
    IF cardinality(old_partitions) > 0 THEN
        EXECUTE format('DROP TABLE @schema@.%I', old_partitions[1]);
        RETURN CASE WHEN cardinality(old_partitions) > 1 THEN 1 ELSE 0 END;
    END IF;

    FOR parent, oldest_kept IN
        SELECT k.parent, k.oldest_kept
          FROM (VALUES ('finished_completed', now() - keep_completed),
                       ('finished_failed', now() - keep_failed)) AS k (parent, oldest_kept)
    LOOP
        EXECUTE format('DELETE FROM @schema@.%1$I WHERE ctid = ANY (ARRAY('
                       'SELECT ctid FROM @schema@.%1$I WHERE finished_at < $1 LIMIT $2))', parent || '_default')
          USING oldest_kept, batch;
        GET DIAGNOSTICS deleted = ROW_COUNT;
        IF deleted = batch THEN
            more := 1;
        END IF;
    END LOOP;
    RETURN more;
END
$$;

-- The first days, so that nothing waits in the default partitions for the first node.
DO $$ BEGIN PERFORM @schema@.create_partitions((now() AT TIME ZONE 'UTC')::date, 4); END $$;
