-- Undoes migration 2. The roles stay: they belong to the whole server, and other databases may use them.

DROP FUNCTION @schema@.complete(bigint, int, jsonb);
DROP FUNCTION @schema@.retry(bigint);
DROP FUNCTION @schema@.cancel(bigint);
DROP FUNCTION @schema@.state_of(text, bigint);
DROP FUNCTION @schema@.enqueue_many(jsonb);
DROP FUNCTION @schema@.enqueue_many_unique(jsonb);
DROP FUNCTION @schema@.json_jobs(jsonb);
DROP FUNCTION @schema@.raise_json_job_fault(jsonb);
DROP FUNCTION @schema@.enqueue(text, jsonb, text, int, timestamptz, int, text, text, text[], jsonb, int);
DROP FUNCTION @schema@.json_job_fault(jsonb);
DROP FUNCTION @schema@.json_unknown_key_text(jsonb);
DROP FUNCTION @schema@.json_is_no_int(jsonb);

DO $$
DECLARE
    member text;
BEGIN
    FOR member IN SELECT rolname FROM pg_catalog.pg_roles
                   WHERE rolname IN ('jobq_enqueuer', 'jobq_viewer', 'jobq_operator') LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON ALL TABLES IN SCHEMA @schema@ FROM %I', member);
        EXECUTE pg_catalog.format('REVOKE ALL (kind, args, queue, priority, scheduled_at, max_attempts, key, unique_key, '
            'tags, meta, timeout_ms, id) ON @schema@.jobs FROM %I', member);
        EXECUTE pg_catalog.format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA @schema@ FROM %I', member);
        EXECUTE pg_catalog.format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA @schema@ FROM %I', member);
        EXECUTE pg_catalog.format('REVOKE ALL ON SCHEMA @schema@ FROM %I', member);
    END LOOP;
END
$$;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA @schema@ TO PUBLIC;
