-- Undoes migration 9.

DROP FUNCTION @schema@._testing_claim, @schema@._testing_settle, @schema@._testing_look;
DROP PROCEDURE @schema@.wait;
DROP FUNCTION @schema@.prune_history, @schema@.prune_rules, @schema@.newest_end, @schema@.history_parts,
    @schema@.queues_retention;
DROP TABLE @schema@.pruning, @schema@.pruned;
DROP FUNCTION @schema@.standing, @schema@.sweep_progress, @schema@.note_progress, @schema@.delete, @schema@.purge,
    @schema@.delete_many, @schema@.bulk_delete, @schema@.retry_many, @schema@.cancel_many;

CREATE OR REPLACE FUNCTION @schema@.cancel_again() RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off AS $$
DECLARE
    request record;
    again int := 0;
BEGIN
    FOR request IN
        DELETE FROM @schema@.cancels c
         USING (SELECT r.job_id, r.attempt, r.node_id, j.id IS NOT NULL AS live
                  FROM @schema@.cancels r
                  LEFT JOIN @schema@.jobs j ON j.id = r.job_id
                 WHERE j.id IS NULL OR j.state <> 'executing' OR j.attempt <> r.attempt
                       OR coalesce(j.attempted_by, 0) <> r.node_id
                   FOR UPDATE OF r SKIP LOCKED) stale
         WHERE c.job_id = stale.job_id AND c.attempt = stale.attempt AND c.node_id = stale.node_id
        RETURNING c.job_id, stale.live
    LOOP
        IF request.live AND @schema@.cancel_live(request.job_id) IS NOT NULL THEN
            again := again + 1;
        END IF;
    END LOOP;
    RETURN again;
END
$$;

DROP FUNCTION @schema@.cancel_anew, @schema@.bulk_find, @schema@._ended_ids, @schema@.bulk_forget, @schema@.bulk_ended, @schema@.bulk_ended_at_once, @schema@.bulk_end, @schema@.bulk_ask, @schema@.bulk_waiting,
    @schema@.bulk_pause, @schema@.bulk_patience,
    @schema@.filter_sql, @schema@.iso, @schema@.time_of, @schema@.numbers_of, @schema@.texts_of, @schema@.shown, @schema@._retryable;

-- A column cannot be taken out of a view in place.
DROP VIEW @schema@.all_jobs;
CREATE VIEW @schema@.all_jobs AS
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

DROP TABLE @schema@.progress;
