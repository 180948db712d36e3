-- Pause, resume and scale queues, on all nodes or on one. The settings are wishes: nodes read them twice a second, and at
-- once when notified. Which setting counts:
--   - a queue is paused on a node if its row of `queues` or the node's own row of `queue_nodes` says so;
--   - the number of workers is that of the node's own row, else that of `queues`, else that of the node's configuration;
--   - resume and scale to null, which undo, do so on every node unless they name one.

-- The queue need not exist: a node that serves it may come later.
CREATE OR REPLACE FUNCTION @schema@._check_queue_node(fn text, queue text, node text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
    IF _check_queue_node.queue IS NULL OR octet_length(_check_queue_node.queue) NOT BETWEEN 1 AND 128 THEN
        RAISE EXCEPTION 'jobq.%: %', fn, @schema@._job_fault_text('queue', to_jsonb(_check_queue_node.queue))
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF _check_queue_node.node !~ '^[A-Za-z0-9._:@-]{1,128}$' THEN
        RAISE EXCEPTION 'jobq.%: node must be null or 1 to 128 letters, digits and . _ - : @, got %', fn,
            to_json(left(_check_queue_node.node, 128)) USING ERRCODE = 'invalid_parameter_value';
    END IF;
END
$$;
COMMENT ON FUNCTION @schema@._check_queue_node IS 'Raises the error for a wrong queue or node of pause, resume and scale.';

CREATE OR REPLACE FUNCTION @schema@.pause(queue text, node text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    changed boolean;
BEGIN
    PERFORM @schema@._check_queue_node('pause', pause.queue, pause.node);
    IF pause.node IS NULL THEN
        INSERT INTO @schema@.queues AS q (name, paused) VALUES (pause.queue, true)
            ON CONFLICT (name) DO UPDATE SET paused = true, updated_at = now() WHERE NOT q.paused;
    ELSE
        INSERT INTO @schema@.queue_nodes AS q (queue, node, paused) VALUES (pause.queue, pause.node, true)
            ON CONFLICT (queue, node) DO UPDATE SET paused = true, updated_at = now() WHERE NOT q.paused;
    END IF;
    changed := FOUND;
    IF changed THEN
        PERFORM @schema@._notify('queues');
    END IF;
    RETURN changed;
END
$$;
COMMENT ON FUNCTION @schema@.pause IS
'Stops nodes from claiming jobs of a queue; running jobs continue. The pause lasts until resume(), also over restarts.
queue is 1 to 128 bytes; no node needs to serve it yet. node is the name of one node; null: all nodes, also later ones.
Returns true if this pause is new. SQLSTATE: 22023 an argument is wrong.';

CREATE OR REPLACE FUNCTION @schema@.resume(queue text, node text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    changed boolean := false;
BEGIN
    PERFORM @schema@._check_queue_node('resume', resume.queue, resume.node);
    IF resume.node IS NULL THEN
        UPDATE @schema@.queues SET paused = false, updated_at = now() WHERE name = resume.queue AND paused;
        changed := FOUND;
    ELSIF EXISTS (SELECT FROM @schema@.queues WHERE name = resume.queue AND paused) THEN
        RAISE EXCEPTION 'jobq.resume: queue % is paused on all nodes: resume it without naming a node, then pause it on '
                        'single nodes',
            resume.queue USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    UPDATE @schema@.queue_nodes SET paused = false, updated_at = now()
     WHERE queue = resume.queue AND node = coalesce(resume.node, node) AND paused;
    changed := changed OR FOUND;
    DELETE FROM @schema@.queue_nodes WHERE queue = resume.queue AND NOT paused AND concurrency IS NULL;
    IF changed THEN
        PERFORM @schema@._notify('queues');
    END IF;
    RETURN changed;
END
$$;
COMMENT ON FUNCTION @schema@.resume IS
'Lets nodes claim jobs of a paused queue again.
queue is 1 to 128 bytes. node is the name of one node; null: all nodes, which also lifts the pauses of single nodes.
Returns true if there was a pause. SQLSTATEs: 22023 an argument is wrong; 55000 a node was named, but the queue is paused on
all nodes: resume it without naming a node, then pause it on single nodes.';

CREATE OR REPLACE FUNCTION @schema@.scale(queue text, n int, node text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    changed boolean;
BEGIN
    PERFORM @schema@._check_queue_node('scale', scale.queue, scale.node);
    IF scale.n NOT BETWEEN 0 AND 1000 THEN
        RAISE EXCEPTION 'jobq.scale: n must be null or 0 to 1000, got %', scale.n
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF scale.n IS NULL THEN
        UPDATE @schema@.queues SET concurrency = NULL, updated_at = now()
         WHERE scale.node IS NULL AND name = scale.queue AND concurrency IS NOT NULL;
        changed := FOUND;
        UPDATE @schema@.queue_nodes SET concurrency = NULL, updated_at = now()
         WHERE queue = scale.queue AND node = coalesce(scale.node, node) AND concurrency IS NOT NULL;
        changed := changed OR FOUND;
        DELETE FROM @schema@.queue_nodes WHERE queue = scale.queue AND NOT paused AND concurrency IS NULL;
    ELSIF scale.node IS NULL THEN
        INSERT INTO @schema@.queues AS q (name, concurrency) VALUES (scale.queue, scale.n)
            ON CONFLICT (name) DO UPDATE SET concurrency = excluded.concurrency, updated_at = now()
                                   WHERE q.concurrency IS DISTINCT FROM excluded.concurrency;
        changed := FOUND;
    ELSE
        INSERT INTO @schema@.queue_nodes AS q (queue, node, concurrency) VALUES (scale.queue, scale.node, scale.n)
            ON CONFLICT (queue, node) DO UPDATE SET concurrency = excluded.concurrency, updated_at = now()
                                          WHERE q.concurrency IS DISTINCT FROM excluded.concurrency;
        changed := FOUND;
    END IF;
    IF changed THEN
        PERFORM @schema@._notify('queues');
    END IF;
    RETURN changed;
END
$$;
COMMENT ON FUNCTION @schema@.scale IS
'Sets the number of workers of a queue, on each node that serves it or on one node. Surplus workers finish their jobs first.
queue is 1 to 128 bytes. n is 0 (jobs wait) to 1000; null: as many as the configuration says.
node is the name of one node, which from then on ignores the setting for all nodes; null: all nodes. With n and node null,
the settings of single nodes are undone as well.
Returns true if this setting is new. SQLSTATE: 22023 an argument is wrong.';

-- The values of dead nodes are dropped if this node serves the queue.
CREATE OR REPLACE FUNCTION @schema@._queue_said(declared jsonb, node text, n int, serves boolean) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_object_agg(d.key, d.value), '{}') || CASE WHEN $3 IS NULL THEN '{}' ELSE jsonb_build_object($2, $3) END
      FROM jsonb_each(CASE WHEN jsonb_typeof($1) = 'object' THEN $1 ELSE '{}' END) d
     WHERE d.key <> $2
       AND (NOT $4 OR EXISTS (SELECT FROM @schema@.nodes a WHERE a.name = d.key AND a.expires_at > clock_timestamp()))
$$;
COMMENT ON FUNCTION @schema@._queue_said IS
    'The value of queues.declared once a node has declared n (null: nothing) for a queue.';

-- queues: an object of the queues that the node serves, each with a number or null. Where nodes differ, the greatest value
-- counts: a job is not discarded earlier than any of them says. changed: how many queues have another max_attempts now.
-- busy: how many rows another session has locked; call the function again for these.
CREATE OR REPLACE FUNCTION @schema@._queue_declare(node text, queues jsonb, OUT changed int, OUT busy int)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
#variable_conflict use_variable
DECLARE
    said record;
    had int;
    has int;
BEGIN
    changed := 0;
    busy := 0;
    FOR said IN
        SELECT coalesce(s.key, q.name) AS queue, nullif(s.value, 'null')::int AS n, s.key IS NOT NULL AS serves
          FROM jsonb_each(queues) s
          FULL JOIN @schema@.queues q ON q.name = s.key
         WHERE CASE WHEN q.name IS NULL THEN s.value <> 'null'
                    WHEN s.key IS NULL THEN q.declared ? node
                    ELSE q.declared <> '{}' OR s.value <> 'null' END
           AND coalesce(q.declared, '{}') IS DISTINCT FROM
               @schema@._queue_said(q.declared, node, nullif(s.value, 'null')::int, s.key IS NOT NULL)
         ORDER BY 1
    LOOP
        BEGIN
            INSERT INTO @schema@.queues AS q (name) VALUES (said.queue) ON CONFLICT ON CONSTRAINT queues_pkey DO NOTHING;
            SELECT q.max_attempts INTO had FROM @schema@.queues q WHERE q.name = said.queue FOR UPDATE;
            UPDATE @schema@.queues q
               SET declared = d.said, max_attempts = (SELECT max(m.value::int) FROM jsonb_each_text(d.said) m), updated_at = now()
              FROM (SELECT @schema@._queue_said(r.declared, node, said.n, said.serves) AS said
                      FROM @schema@.queues r WHERE r.name = said.queue) d
             WHERE q.name = said.queue
            RETURNING q.max_attempts INTO has;
            SET CONSTRAINTS ALL IMMEDIATE;
            IF has IS DISTINCT FROM had THEN
                changed := changed + 1;
            END IF;
        EXCEPTION
            WHEN lock_not_available THEN
                busy := busy + 1;
                PERFORM set_config('lock_timeout', '1ms', true); -- do not wait for the next lock
            WHEN OTHERS OR assert_failure THEN
                IF @schema@._is_passing(SQLSTATE) THEN
                    RAISE;
                END IF;
                RAISE WARNING 'queue %: could not write its max_attempts: %', said.queue, left(SQLERRM, 1000)
                    USING ERRCODE = '01JQ1';
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION @schema@._queue_declare IS
    'Records the max_attempts that the configuration of a node sets for its queues.';
