-- The checks of a new job, and the triggers that apply them to a plain INSERT.

CREATE OR REPLACE FUNCTION @schema@._job_fault_text(field text, got jsonb) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT field || ' must be ' || CASE field
               WHEN 'kind' THEN 'text of 1 to 128 bytes'
               WHEN 'args' THEN 'a JSON object'
               WHEN 'queue' THEN 'text of 1 to 128 bytes'
               WHEN 'priority' THEN '0 to 9'
               WHEN 'scheduled_at' THEN 'null or a finite time'
               WHEN 'max_attempts' THEN '1 to 1000'
               WHEN 'key' THEN 'null or text of 1 to 512 bytes'
               WHEN 'unique_key' THEN 'null or text of 1 to 512 bytes'
               WHEN 'tags' THEN 'an array of texts without nulls'
               WHEN 'meta' THEN 'a JSON object'
               WHEN 'timeout_ms' THEN 'null or 1 to 2147483647'
               WHEN 'expires_at' THEN 'null or a finite time, after scheduled_at if that is in the future'
               WHEN 'unique_by' THEN 'null or a JSON object'
               WHEN 'unique_by.fields' THEN 'an array of one or more of kind, queue, args and meta'
               WHEN 'unique_by.keys' THEN 'an array of one or more texts'
               WHEN 'unique_by.period' THEN 'whole seconds, 1 to 2147483647, or "infinity"'
               WHEN 'unique_by.states' THEN 'an array of one or more of scheduled, available, executing, retryable,'
                    ' suspended, completed, cancelled and discarded'
               WHEN 'on_conflict' THEN '"ignore", "replace" or "raise"'
               WHEN 'replace.executing' THEN 'an array of one or more of args, meta, tags, max_attempts and timeout_ms'
               ELSE 'an array of one or more of args, meta, tags, priority, queue, kind, max_attempts, timeout_ms,'
                    ' scheduled_at and expires_at'
                    || CASE WHEN field = 'replace' THEN ', or an object of such arrays by state' ELSE '' END
           END || ', got ' || @schema@._shown(got)
$$;
COMMENT ON FUNCTION @schema@._job_fault_text IS
    'The error text for a wrong argument: what is allowed, and the value that came (got, as JSON).';

-- An expires_at in the past is no fault: the caller's transaction may have taken long. There is no SET clause, so that the
-- planner inlines the function into functions that have set their search_path.
CREATE OR REPLACE FUNCTION @schema@._job_fault(kind text, args jsonb, queue text, priority int,
    scheduled_at timestamptz, max_attempts int, key text, unique_key text, tags text[], meta jsonb,
    timeout_ms int, expires_at timestamptz DEFAULT NULL) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN kind IS NULL OR pg_catalog.octet_length(kind) NOT BETWEEN 1 AND 128
            THEN @schema@._job_fault_text('kind', pg_catalog.to_jsonb(kind))
        WHEN args IS NULL OR pg_catalog.jsonb_typeof(args) <> 'object'
            THEN @schema@._job_fault_text('args', args)
        WHEN queue IS NULL OR pg_catalog.octet_length(queue) NOT BETWEEN 1 AND 128
            THEN @schema@._job_fault_text('queue', pg_catalog.to_jsonb(queue))
        WHEN priority IS NULL OR priority NOT BETWEEN 0 AND 9
            THEN @schema@._job_fault_text('priority', pg_catalog.to_jsonb(priority))
        WHEN NOT pg_catalog.isfinite(scheduled_at)
            THEN @schema@._job_fault_text('scheduled_at', pg_catalog.to_jsonb(scheduled_at))
        WHEN max_attempts IS NULL OR max_attempts NOT BETWEEN 1 AND 1000
            THEN @schema@._job_fault_text('max_attempts', pg_catalog.to_jsonb(max_attempts))
        WHEN pg_catalog.octet_length(key) NOT BETWEEN 1 AND 512
            THEN @schema@._job_fault_text('key', pg_catalog.to_jsonb(key))
        WHEN pg_catalog.octet_length(unique_key) NOT BETWEEN 1 AND 512
            THEN @schema@._job_fault_text('unique_key', pg_catalog.to_jsonb(unique_key))
        WHEN tags IS NULL OR pg_catalog.array_ndims(tags) > 1
             OR pg_catalog.array_position(tags, NULL) IS NOT NULL
            THEN @schema@._job_fault_text('tags', pg_catalog.to_jsonb(tags))
        WHEN pg_catalog.pg_column_size(tags) > 65536
            THEN 'tags must take at most 65536 bytes, got ' || pg_catalog.pg_column_size(tags)
        WHEN meta IS NULL OR pg_catalog.jsonb_typeof(meta) <> 'object'
            THEN @schema@._job_fault_text('meta', meta)
        WHEN timeout_ms < 1
            THEN @schema@._job_fault_text('timeout_ms', pg_catalog.to_jsonb(timeout_ms))
        WHEN NOT pg_catalog.isfinite(expires_at)
             OR (expires_at <= scheduled_at AND scheduled_at > pg_catalog.now())
            THEN @schema@._job_fault_text('expires_at', pg_catalog.to_jsonb(expires_at))
        WHEN CASE WHEN pg_catalog.pg_column_size(args) <= 20 THEN false
                  WHEN pg_catalog.pg_column_size(args) <= 500 THEN pg_catalog.octet_length(args::text) > 4000
                  WHEN pg_catalog.pg_column_size(args #> '{}') <= 8192 THEN pg_catalog.octet_length(args::text) > 4000
                  ELSE true END
             OR CASE WHEN pg_catalog.pg_column_size(meta) <= 20 THEN false
                  WHEN pg_catalog.pg_column_size(meta) <= 500 THEN pg_catalog.octet_length(meta::text) > 4000
                  WHEN pg_catalog.pg_column_size(meta #> '{}') <= 8192 THEN pg_catalog.octet_length(meta::text) > 4000
                  ELSE true END
            THEN @schema@._content_fault(args, meta)
    END
$$;
COMMENT ON FUNCTION @schema@._job_fault IS 'The first fault of a job''s arguments as text; null: none.';

-- state and position follow from scheduled_at; max_attempts is the queue's, else 20. A job that is due before the stager
-- looks again notifies it. SECURITY DEFINER, because a role that may insert may not call the functions used here.
CREATE OR REPLACE FUNCTION @schema@._jobs_before_insert() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
    IF octet_length(NEW.unique_key) > 512 THEN -- otherwise its index refuses it, with another message
        RAISE EXCEPTION 'jobq.jobs: %', @schema@._job_fault_text('unique_key', to_jsonb(NEW.unique_key))
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NEW.max_attempts IS NULL THEN
        NEW.max_attempts := coalesce((SELECT q.max_attempts FROM @schema@.queues q WHERE q.name = NEW.queue), 20);
    END IF;
    IF NEW.state NOT IN ('available', 'scheduled', 'suspended') THEN
        RAISE EXCEPTION 'jobq.jobs: state of a new job must be available, scheduled or suspended, got %', NEW.state
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NEW.state = 'suspended' THEN
        NEW.position := NULL;
    ELSIF NEW.scheduled_at > now() THEN
        NEW.state := 'scheduled';
        NEW.position := NULL;
        IF NEW.scheduled_at < now() + interval '2 seconds' THEN
            PERFORM @schema@._notify('stage');
        END IF;
    ELSE
        NEW.state := 'available';
        NEW.position := coalesce(NEW.position, @schema@._next_position());
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION @schema@._jobs_before_insert IS
    'Fills in what a plain INSERT leaves out: state, position and max_attempts.';

-- These checks must not be CHECK constraints, because each claim would make them again. The WHEN clause of the BEFORE
-- trigger is no place for them either: each statement reads that clause from its text in the catalog, which took a third of
-- the time of a one-row INSERT. The first condition lets nearly every job pass quickly; the rest are checked thoroughly.
CREATE OR REPLACE FUNCTION @schema@._jobs_after_insert() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    fault text;
BEGIN
    IF EXISTS (SELECT FROM inserted n
                WHERE greatest(n.id, n.position) > 9007199254740991 OR least(n.id, n.position) < 1 OR n.attempt > 1000
                      OR NOT isfinite(n.scheduled_at) OR n.unique_key = ''
                      OR (n.key IS NOT NULL AND octet_length(n.key) NOT BETWEEN 1 AND 512)
                      OR (n.expires_at IS NOT NULL AND (NOT isfinite(n.expires_at) OR n.expires_at <= n.scheduled_at
                                                                                      AND n.scheduled_at > now()))
                      -- the sizes of these columns when they are empty
                      OR (pg_column_size(n.tags) + pg_column_size(n.errors || '[]') + pg_column_size(n.meta || '{}') > 32
                          AND (CASE WHEN array_ndims(n.tags) > 1 OR pg_column_size(n.tags) > 65536 THEN true
                                    ELSE array_position(n.tags, NULL) IS NOT NULL END
                               OR jsonb_typeof(n.errors) <> 'array' OR jsonb_typeof(n.meta) <> 'object'
                               OR pg_column_size(n.meta #> '{}') > 8192 OR octet_length(n.meta::text) > 4000))
                      -- an object keeps its size (except for the three bytes of its header), any other value grows
                      OR pg_column_size(n.args || '{}') > pg_column_size(n.args) + 3
                      OR CASE WHEN pg_column_size(n.args) <= 20 THEN false
                              WHEN pg_column_size(n.args) <= 500 THEN octet_length(n.args::text) > 4000
                              ELSE pg_column_size(n.args #> '{}') > 8192 OR octet_length(n.args::text) > 4000 END) THEN
        SELECT f.fault || CASE WHEN n.rows > 1 THEN format(' (row %s of %s)', n.nth, n.rows) ELSE '' END INTO fault
          FROM (SELECT i.*, row_number() OVER () AS nth, count(*) OVER () AS rows FROM inserted i) n
         CROSS JOIN LATERAL (
                SELECT CASE
                    WHEN n.id NOT BETWEEN 1 AND 9007199254740991 THEN 'id must be 1 to 9007199254740991, got ' || n.id
                    WHEN n.position NOT BETWEEN 1 AND 9007199254740991
                        THEN 'position must be null or 1 to 9007199254740991, got ' || n.position
                    WHEN n.attempt > 1000 THEN 'attempt must be 0 to 1000, got ' || n.attempt
                    WHEN jsonb_typeof(n.errors) <> 'array' THEN 'errors must be a JSON array, got ' || @schema@._shown(n.errors)
                    ELSE @schema@._job_fault(n.kind, n.args, n.queue, n.priority::int, n.scheduled_at, n.max_attempts, n.key,
                                            n.unique_key, n.tags, n.meta, n.timeout_ms, n.expires_at) END AS fault) f
         WHERE f.fault IS NOT NULL
         LIMIT 1;
        IF fault IS NOT NULL THEN
            RAISE EXCEPTION 'jobq.jobs: %', fault USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END IF;
    IF EXISTS (SELECT FROM @schema@._idle) THEN
        PERFORM @schema@._wake(ARRAY(SELECT DISTINCT n.queue FROM inserted n WHERE n.position IS NOT NULL));
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION @schema@._jobs_after_insert IS 'Checks new jobs, then wakes the nodes that wait idle for their queues.';

-- A call for each row is worth its cost only for faults that a plain INSERT can have and an enqueue cannot.
CREATE OR REPLACE TRIGGER jobs_before_insert BEFORE INSERT ON @schema@.jobs FOR EACH ROW
    WHEN (NEW.scheduled_at > now() OR NEW.state <> 'available' OR NEW.position IS NULL OR octet_length(NEW.unique_key) > 512
          OR NEW.max_attempts IS NULL)
    EXECUTE FUNCTION @schema@._jobs_before_insert();

CREATE OR REPLACE TRIGGER jobs_after_insert AFTER INSERT ON @schema@.jobs
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT
    EXECUTE FUNCTION @schema@._jobs_after_insert();
