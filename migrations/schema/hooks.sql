-- on_discard_kind: a job of the application's own for each job that is discarded or expires.

-- queues: an array of {queue, kind, to_queue} for the queues that the node serves; a null kind: the queue has no hook. What
-- dead nodes declared for these queues is deleted.
CREATE OR REPLACE FUNCTION @schema@._hooks_declare(node text, queues jsonb) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
#variable_conflict use_variable
DECLARE
    n int;
    changed int := 0;
BEGIN
    DELETE FROM @schema@._hooks h
     WHERE CASE WHEN h.node = node
                THEN NOT EXISTS (SELECT FROM jsonb_array_elements(queues) s
                                  WHERE s ->> 'queue' = h.queue AND s ->> 'kind' IS NOT NULL)
                ELSE EXISTS (SELECT FROM jsonb_array_elements(queues) s WHERE s ->> 'queue' = h.queue)
                     AND NOT EXISTS (SELECT FROM @schema@.nodes a WHERE a.name = h.node AND a.expires_at > clock_timestamp()) END;
    GET DIAGNOSTICS changed = ROW_COUNT;
    INSERT INTO @schema@._hooks AS h (queue, node, kind, to_queue)
    SELECT s ->> 'queue', node, s ->> 'kind', s ->> 'to_queue' FROM jsonb_array_elements(queues) s WHERE s ->> 'kind' IS NOT NULL
        ON CONFLICT ON CONSTRAINT _hooks_pkey DO UPDATE SET kind = excluded.kind, to_queue = excluded.to_queue
     WHERE (h.kind, h.to_queue) IS DISTINCT FROM (excluded.kind, excluded.to_queue);
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN changed + n;
END
$$;
COMMENT ON FUNCTION @schema@._hooks_declare IS
    'Records on_discard_kind of a node''s configuration; returns how many queues have another hook now.';

-- Called each minute. A declaration ends only where another living node serves the queue. Where none does it stays: jobs may
-- be enqueued, and end, without a node. A locked row is left for the next call.
CREATE OR REPLACE FUNCTION @schema@._declared_sweep() RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
#variable_conflict use_variable
DECLARE
    alive CONSTANT text[] := ARRAY(SELECT n.name FROM @schema@.nodes n WHERE n.expires_at > clock_timestamp());
    served CONSTANT text[] := ARRAY(
        SELECT q FROM @schema@.nodes n
         CROSS JOIN LATERAL jsonb_object_keys(CASE WHEN jsonb_typeof(n.queues) = 'object' THEN n.queues ELSE '{}' END) q
         WHERE n.expires_at > clock_timestamp());
    gone int;
    fewer int;
BEGIN
    DELETE FROM @schema@._hooks h
     WHERE h.ctid = ANY (ARRAY(SELECT d.ctid FROM @schema@._hooks d WHERE d.node <> ALL (alive) AND d.queue = ANY (served)
                                  FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS gone = ROW_COUNT;
    WITH stale AS (
        SELECT q.name, k.declared
          FROM @schema@.queues q
         CROSS JOIN LATERAL (
                SELECT coalesce(jsonb_object_agg(d.key, d.value) FILTER (WHERE d.key = ANY (alive)), '{}') AS declared
                  FROM jsonb_each(CASE WHEN jsonb_typeof(q.declared) = 'object' THEN q.declared ELSE '{}' END) d) k
         WHERE q.name = ANY (served) AND k.declared <> q.declared
           FOR UPDATE OF q SKIP LOCKED
    )
    UPDATE @schema@.queues q
       SET declared = s.declared, max_attempts = (SELECT max(m.value::int) FROM jsonb_each_text(s.declared) m), updated_at = now()
      FROM stale s
     WHERE q.name = s.name;
    GET DIAGNOSTICS fewer = ROW_COUNT;
    RETURN gone + fewer;
EXCEPTION
    WHEN OTHERS OR assert_failure THEN
        IF @schema@._is_passing(SQLSTATE) THEN
            RAISE;
        END IF;
        RAISE WARNING 'could not delete the declarations of removed nodes: %', left(SQLERRM, 1000) USING ERRCODE = '01JQ1';
        RETURN 0;
END
$$;
COMMENT ON FUNCTION @schema@._declared_sweep IS
    'Deletes what dead nodes declared of max_attempts and on_discard_kind; returns how many rows it changed.';

-- It runs in the transaction that ends the job, however that ends: settled, rescued or expired. A hook's own job calls no
-- hook. A hook's job that cannot be enqueued stops nothing: without the ended job's args and meta it may be small enough; if
-- not, a warning says so.
CREATE OR REPLACE FUNCTION @schema@._on_discard() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    hook record;
    entry jsonb;
    story jsonb;
BEGIN
    FOR hook IN SELECT DISTINCT h.kind, coalesce(h.to_queue, NEW.queue) AS to_queue
                  FROM @schema@._hooks h WHERE h.queue = NEW.queue ORDER BY 1, 2
    LOOP
        EXIT WHEN @schema@._is_hooks(NEW.meta);
        BEGIN
            entry := @schema@._errors(NEW.errors) -> -1;
            -- A job that was retried by hand after it had expired no longer has expires_at, but still has that error.
            IF NEW.state = 'cancelled' AND (entry ->> 'kind' IS DISTINCT FROM 'expired' OR NEW.expires_at IS NULL) THEN
                EXIT;
            END IF;
            story := jsonb_build_object('event', 'discard', 'job', NEW.id, 'kind', NEW.kind, 'queue', NEW.queue,
                'attempt', NEW.attempt, 'max_attempts', NEW.max_attempts, 'state', NEW.state, 'tags', NEW.tags, 'key', NEW.key,
                'at', @schema@._iso(NEW.finished_at), 'error', entry);
            BEGIN
                PERFORM @schema@.enqueue(hook.kind, story || jsonb_build_object('args', NEW.args, 'meta', NEW.meta),
                    queue => hook.to_queue, meta => '{"jobq.hook": "on_discard_kind"}');
            EXCEPTION WHEN OTHERS OR assert_failure THEN
                IF @schema@._is_passing(SQLSTATE) THEN
                    RAISE;
                END IF;
                PERFORM @schema@.enqueue(hook.kind, story - 'tags' || jsonb_build_object('args_left_out', left(SQLERRM, 1000),
                    'error', jsonb_build_object('kind', entry ->> 'kind', 'error', left(entry ->> 'error', 1000))),
                    queue => hook.to_queue, meta => '{"jobq.hook": "on_discard_kind"}');
            END;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            IF @schema@._is_passing(SQLSTATE) THEN
                RAISE;
            END IF;
            RAISE WARNING 'job %: its on_discard_kind (%) could not be enqueued: %', NEW.id, hook.kind, left(SQLERRM, 1000)
                USING ERRCODE = '01JQ1';
        END;
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION @schema@._on_discard IS 'Enqueues the hooks'' jobs for a job that was discarded or has expired.';

-- Only on the part of the history without completed jobs, so that completing a job costs no more.
CREATE OR REPLACE TRIGGER on_discard AFTER INSERT ON @schema@._finished_failed
    FOR EACH ROW EXECUTE FUNCTION @schema@._on_discard();
