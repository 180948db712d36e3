-- jobq, migration 8: pause, resume and scale queues, on all nodes or on one.
--
-- The settings are wishes: nodes read them twice a second, and at once when NOTIFY says that there is something new. What
-- wins:
--   - a queue is paused on a node when its row of `queues` or the node's own row of `queue_nodes` says so;
--   - of the number of workers, the node's own row wins over `queues`, and that over the node's configuration;
--   - what undoes (resume, scale to null) does so on every node when it names none.

-- A queue's settings on one node, by the node's name, whether or not it runs at the moment. A row that says nothing is
-- taken away.
CREATE TABLE @schema@.queue_nodes (
    queue       text NOT NULL,
    node        text NOT NULL,
    paused      boolean NOT NULL DEFAULT false,
    concurrency int CHECK (concurrency BETWEEN 0 AND 1000),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (queue, node)
);

-- What pause, resume and scale refuse. The queue need not be there: a node may come that serves it.
CREATE FUNCTION @schema@.check_queue_node(fn text, queue text, node text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
    IF check_queue_node.queue IS NULL OR octet_length(check_queue_node.queue) NOT BETWEEN 1 AND 128 THEN
        RAISE EXCEPTION 'jobq.%: %', fn, @schema@.job_fault_text('queue', to_jsonb(check_queue_node.queue))
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF check_queue_node.node !~ '^[A-Za-z0-9._:@-]{1,128}$' THEN
        RAISE EXCEPTION 'jobq.%: node must be null or 1 to 128 letters, digits and . _ - : @, got %', fn,
            to_json(left(check_queue_node.node, 128)) USING ERRCODE = 'invalid_parameter_value';
    END IF;
END
$$;

-- From now on no node, or that node alone, claims jobs of the queue; those that run go on. True: that is new.
CREATE FUNCTION @schema@.pause(queue text, node text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    changed boolean;
BEGIN
    PERFORM @schema@.check_queue_node('pause', pause.queue, pause.node);
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

-- Lifts the pauses of the queue, those of single nodes too; with a node, that one's own alone, which is refused while the
-- queue is paused on all. True: there was one.
CREATE FUNCTION @schema@.resume(queue text, node text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    changed boolean := false;
BEGIN
    PERFORM @schema@.check_queue_node('resume', resume.queue, resume.node);
    IF resume.node IS NULL THEN
        UPDATE @schema@.queues SET paused = false, updated_at = now() WHERE name = resume.queue AND paused;
        changed := FOUND;
    ELSIF EXISTS (SELECT FROM @schema@.queues WHERE name = resume.queue AND paused) THEN
        RAISE EXCEPTION 'jobq.resume: queue % is paused on all nodes: resume it without a node, then pause single ones',
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

-- So many workers on each node that serves the queue, or on that node alone, which then no longer follows the others. Those
-- that are too many finish what they hold. null: as the configuration says, again; without a node on every one. True:
-- that is new.
CREATE FUNCTION @schema@.scale(queue text, n int, node text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    changed boolean;
BEGIN
    PERFORM @schema@.check_queue_node('scale', scale.queue, scale.node);
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
