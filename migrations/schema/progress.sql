-- The progress of running jobs.

-- done is in millionths. The lease is renewed on the same connection, so this waits for a lock no longer than a moment.
-- Where the database refuses all of it, the guilty jobs are found by halving and left out: the job reports again soon. So
-- are jobs that are left after a third of a second, or after 60 subtransactions; these are not always the same ones.
CREATE OR REPLACE FUNCTION @schema@._note_progress(node bigint, ids bigint[], attempts int[], done bigint[], notes text[]) RETURNS void
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
            INSERT INTO @schema@._progress (job_id, attempt, done, note, at)
            SELECT u.id, u.attempt, u.done / 1000000.0, u.note, clock_timestamp()
              FROM unnest(ids[low : high], attempts[low : high], _note_progress.done[low : high], notes[low : high])
                       u (id, attempt, done, note)
              JOIN @schema@.jobs j
                ON j.id = ANY (ARRAY[u.id]) AND j.attempt = u.attempt AND j.attempted_by = _note_progress.node AND j.state = 'executing'
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
COMMENT ON FUNCTION @schema@._note_progress IS 'Records the progress that a node reports for the attempts that it runs.';

CREATE OR REPLACE FUNCTION @schema@._sweep_progress() RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off AS $$
#variable_conflict use_variable
BEGIN
    RETURN d.deleted FROM @schema@._delete_apart('_progress', ARRAY(
        SELECT p.ctid FROM @schema@._progress p
         WHERE NOT EXISTS (SELECT FROM @schema@.jobs j
                            WHERE j.id = ANY (ARRAY[p.job_id]) AND j.attempt = p.attempt AND j.state = 'executing')
           FOR UPDATE OF p SKIP LOCKED)) d;
END
$$;
COMMENT ON FUNCTION @schema@._sweep_progress IS 'Deletes the progress of attempts that have ended; returns how many rows.';
