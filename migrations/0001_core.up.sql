-- jobq, migration 1: the live jobs, the history, the nodes, and the functions that any language calls.
-- @schema@ is replaced by the schema's name (quoted) before this runs. PostgreSQL 13 to 18.

-- The states, in Oban's words. libjobq/state.h holds the same list; a test compares the two.
CREATE TYPE @schema@.job_state AS ENUM
    ('scheduled', 'available', 'executing', 'retryable', 'suspended',
     'completed', 'cancelled', 'discarded');

CREATE SEQUENCE @schema@.jobs_id_seq;
CREATE SEQUENCE @schema@.jobs_position_seq;

-- A job's place in its line. The transaction's id is assigned before the position is taken, and CASE keeps
-- that order: so whoever reads the sequence's value and then takes a transaction id of its own knows that
-- each position up to that value belongs to a smaller transaction id. The claim cursor's safe base rests
-- on this (jobqd/pure/cursor.h). Without a SET clause, so that the planner can inline it.
CREATE FUNCTION @schema@.next_position() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN pg_catalog.pg_current_xact_id() IS NOT NULL
                THEN pg_catalog.nextval('@schema@.jobs_position_seq'::pg_catalog.regclass) END
$$;

-- Live jobs alone. No index's column or predicate is one that a claim changes (state, attempt, attempted_at,
-- attempted_by), so that a claim is a HOT update; the fillfactor leaves room on the page for the claimed
-- version of each row. Fixed-width columns come first: no padding.
CREATE TABLE @schema@.jobs (
    id           bigint NOT NULL DEFAULT nextval('@schema@.jobs_id_seq'),
    position     bigint DEFAULT @schema@.next_position(),
    inserted_at  timestamptz NOT NULL DEFAULT now(),
    scheduled_at timestamptz NOT NULL DEFAULT now(),
    attempted_at timestamptz,
    attempted_by bigint,
    state        @schema@.job_state NOT NULL DEFAULT 'available',
    attempt      int NOT NULL DEFAULT 0,
    max_attempts int NOT NULL DEFAULT 20,
    timeout_ms   int,
    priority     smallint NOT NULL DEFAULT 0,
    queue        text NOT NULL DEFAULT 'default',
    kind         text NOT NULL,
    args         jsonb NOT NULL DEFAULT '{}',
    meta         jsonb NOT NULL DEFAULT '{}',
    tags         text[] NOT NULL DEFAULT '{}',
    errors       jsonb NOT NULL DEFAULT '[]',
    key          text,
    unique_key   text,
    CONSTRAINT jobs_pkey PRIMARY KEY (id),
    CONSTRAINT jobs_priority_is_0_to_9 CHECK (priority BETWEEN 0 AND 9),
    CONSTRAINT jobs_attempt_is_not_negative CHECK (attempt >= 0),
    CONSTRAINT jobs_max_attempts_is_1_to_1000 CHECK (max_attempts BETWEEN 1 AND 1000),
    CONSTRAINT jobs_timeout_ms_is_positive CHECK (timeout_ms > 0),
    CONSTRAINT jobs_queue_is_1_to_128_bytes CHECK (octet_length(queue) BETWEEN 1 AND 128),
    CONSTRAINT jobs_kind_is_1_to_128_bytes CHECK (octet_length(kind) BETWEEN 1 AND 128),
    CONSTRAINT jobs_is_live CHECK (state < 'completed'),
    -- A claimable job without a position would never be found, so it cannot exist.
    CONSTRAINT jobs_position_belongs_to_state
        CHECK ((position IS NOT NULL) = (state IN ('available', 'executing')))
) WITH (fillfactor = 45, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

ALTER SEQUENCE @schema@.jobs_id_seq OWNED BY @schema@.jobs.id;
ALTER SEQUENCE @schema@.jobs_position_seq OWNED BY @schema@.jobs.position;

CREATE INDEX jobs_claim ON @schema@.jobs (queue, priority, position) WHERE position IS NOT NULL;
CREATE INDEX jobs_due ON @schema@.jobs (scheduled_at) WHERE position IS NULL;
CREATE UNIQUE INDEX jobs_unique_key ON @schema@.jobs (unique_key) WHERE unique_key IS NOT NULL;

-- Ended jobs, by class of state and by day (UTC): pruning is DROP TABLE of a day. The default partitions
-- catch what comes while no day's partition exists yet, so that an ack never fails for want of one.
CREATE TABLE @schema@.finished_jobs (
    id           bigint NOT NULL,
    position     bigint,
    inserted_at  timestamptz NOT NULL,
    scheduled_at timestamptz NOT NULL,
    attempted_at timestamptz,
    attempted_by bigint,
    finished_at  timestamptz NOT NULL,
    run_us       bigint,            -- the last attempt's run time, where it was measured
    cpu_us       bigint,            -- its processor time, user and system
    max_rss_kb   bigint,            -- its peak resident memory
    state        @schema@.job_state NOT NULL,
    attempt      int NOT NULL,
    max_attempts int NOT NULL,
    timeout_ms   int,
    priority     smallint NOT NULL,
    queue        text NOT NULL,
    kind         text NOT NULL,
    args         jsonb NOT NULL,
    meta         jsonb NOT NULL,
    tags         text[] NOT NULL,
    errors       jsonb NOT NULL,
    key          text,
    unique_key   text,
    result       jsonb
) PARTITION BY LIST (state);

CREATE TABLE @schema@.finished_completed PARTITION OF @schema@.finished_jobs
    FOR VALUES IN ('completed') PARTITION BY RANGE (finished_at);
CREATE TABLE @schema@.finished_failed PARTITION OF @schema@.finished_jobs
    FOR VALUES IN ('cancelled', 'discarded') PARTITION BY RANGE (finished_at);
CREATE TABLE @schema@.finished_completed_default PARTITION OF @schema@.finished_completed DEFAULT;
CREATE TABLE @schema@.finished_failed_default PARTITION OF @schema@.finished_failed DEFAULT;
-- A history that is published (FOR ALL TABLES) could not be deleted from, since it has no key: each partition needs this
-- for itself. Rows that come, as by each ack, are not logged otherwise for it.
ALTER TABLE @schema@.finished_jobs REPLICA IDENTITY FULL;
ALTER TABLE @schema@.finished_completed REPLICA IDENTITY FULL;
ALTER TABLE @schema@.finished_failed REPLICA IDENTITY FULL;
ALTER TABLE @schema@.finished_completed_default REPLICA IDENTITY FULL;
ALTER TABLE @schema@.finished_failed_default REPLICA IDENTITY FULL;
CREATE INDEX finished_jobs_id ON @schema@.finished_jobs USING brin (id)
    WITH (pages_per_range = 32, autosummarize = on);

CREATE VIEW @schema@.all_jobs AS
    SELECT id, state, queue, kind, args, meta, tags, priority, position, attempt, max_attempts, errors,
           key, unique_key, timeout_ms, inserted_at, scheduled_at, attempted_at, attempted_by,
           NULL::timestamptz AS finished_at, NULL::jsonb AS result,
           NULL::bigint AS run_us, NULL::bigint AS cpu_us, NULL::bigint AS max_rss_kb
      FROM @schema@.jobs
    UNION ALL
    SELECT id, state, queue, kind, args, meta, tags, priority, position, attempt, max_attempts, errors,
           key, unique_key, timeout_ms, inserted_at, scheduled_at, attempted_at, attempted_by,
           finished_at, result, run_us, cpu_us, max_rss_kb
      FROM @schema@.finished_jobs;

-- One row a running jobqd. expires_at is its lease, by this clock. session counts its work connections and is
-- part of a unique key on purpose: a claim holds FOR KEY SHARE on (id, session), so a new session (or the
-- row's deletion by the lifeline) waits for a claim in flight and shuts out any later one.
CREATE TABLE @schema@.nodes (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session    bigint NOT NULL DEFAULT 0,
    name       text NOT NULL UNIQUE,
    host       text NOT NULL,       -- machine, boot and pid namespace: where pid means something
    pid        int NOT NULL,
    pid_start  bigint NOT NULL,     -- the process's start, clock ticks after boot: tells a pid from its reuse
    version    text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    renewed_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    queues     jsonb NOT NULL DEFAULT '{}',     -- per queue: workers, busy, restarts, back-off
    UNIQUE (id, session)
) WITH (fillfactor = 50);

-- A queue's settings for the whole cluster, over what the configuration files say.
CREATE TABLE @schema@.queues (
    name        text PRIMARY KEY,
    paused      boolean NOT NULL DEFAULT false,
    concurrency int CHECK (concurrency >= 0),
    updated_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE @schema@.crons (
    name        text PRIMARY KEY,
    schedule    text NOT NULL,
    timezone    text NOT NULL DEFAULT 'UTC',
    kind        text NOT NULL,
    args        jsonb NOT NULL DEFAULT '{}',
    queue       text NOT NULL DEFAULT 'default',
    paused      boolean NOT NULL DEFAULT false,
    updated_at  timestamptz NOT NULL DEFAULT now()
);

-- The one node that keeps house, by a leased row (a session lock would not survive a pooler).
CREATE TABLE @schema@.leader (
    singleton  boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    node_id    bigint NOT NULL,
    expires_at timestamptz NOT NULL
);

-- Which node waits idle for which queue: an insert notifies only for these. Unlogged, because it is a hint:
-- lost in a crash, and then the nodes' polling covers it until they say it again.
CREATE UNLOGGED TABLE @schema@.idle (
    queue   text NOT NULL,
    node_id bigint NOT NULL,
    PRIMARY KEY (queue, node_id)
);

-- Wakes the nodes that wait idle for these queues. NOTIFY takes a lock for the whole server at commit,
-- so nobody is notified who does not wait.
CREATE FUNCTION @schema@.wake(queues text[]) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_catalog.pg_notify('@channel@', 'queue ' || q.queue)
      FROM (SELECT DISTINCT i.queue FROM @schema@.idle i WHERE i.queue = ANY ($1)) q
$$;

-- What an argument of a job must be, and what came instead. `got` is the value as JSON.
CREATE FUNCTION @schema@.job_fault_text(field text, got jsonb) RETURNS text
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
           END || ', got ' || CASE
               WHEN got IS NULL THEN 'null'
               WHEN octet_length(got::text) <= 100 THEN got::text
               ELSE left(got::text, 60) || '... (' || octet_length(got #>> '{}') || ' bytes)'
           END
$$;

-- The first fault of a job's arguments as text, NULL when there is none. Without a SET clause, so that it is
-- inlined where it is called: from functions that have set their search_path.
CREATE FUNCTION @schema@.job_fault(kind text, args jsonb, queue text, priority int,
    scheduled_at timestamptz, max_attempts int, key text, unique_key text, tags text[], meta jsonb,
    timeout_ms int) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN kind IS NULL OR pg_catalog.octet_length(kind) NOT BETWEEN 1 AND 128
            THEN @schema@.job_fault_text('kind', pg_catalog.to_jsonb(kind))
        WHEN args IS NULL OR pg_catalog.jsonb_typeof(args) <> 'object'
            THEN @schema@.job_fault_text('args', args)
        WHEN queue IS NULL OR pg_catalog.octet_length(queue) NOT BETWEEN 1 AND 128
            THEN @schema@.job_fault_text('queue', pg_catalog.to_jsonb(queue))
        WHEN priority IS NULL OR priority NOT BETWEEN 0 AND 9
            THEN @schema@.job_fault_text('priority', pg_catalog.to_jsonb(priority))
        WHEN NOT pg_catalog.isfinite(scheduled_at)
            THEN @schema@.job_fault_text('scheduled_at', pg_catalog.to_jsonb(scheduled_at))
        WHEN max_attempts IS NULL OR max_attempts NOT BETWEEN 1 AND 1000
            THEN @schema@.job_fault_text('max_attempts', pg_catalog.to_jsonb(max_attempts))
        WHEN pg_catalog.octet_length(key) NOT BETWEEN 1 AND 512
            THEN @schema@.job_fault_text('key', pg_catalog.to_jsonb(key))
        WHEN pg_catalog.octet_length(unique_key) NOT BETWEEN 1 AND 512
            THEN @schema@.job_fault_text('unique_key', pg_catalog.to_jsonb(unique_key))
        WHEN tags IS NULL OR pg_catalog.array_ndims(tags) > 1
             OR pg_catalog.array_position(tags, NULL) IS NOT NULL
            THEN @schema@.job_fault_text('tags', pg_catalog.to_jsonb(tags))
        WHEN meta IS NULL OR pg_catalog.jsonb_typeof(meta) <> 'object'
            THEN @schema@.job_fault_text('meta', meta)
        WHEN timeout_ms < 1
            THEN @schema@.job_fault_text('timeout_ms', pg_catalog.to_jsonb(timeout_ms))
    END
$$;

-- A plain INSERT may leave out state and position: they follow from scheduled_at. What a CHECK constraint would look
-- at again with each claim (or fetch from the toast for it) is looked at here, once. Who inserts something
-- that is due sooner than the stager looks again tells it so. SECURITY DEFINER, because who may insert may not
-- call what is called here.
CREATE FUNCTION @schema@.jobs_before_insert() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fault CONSTANT text := @schema@.job_fault(NEW.kind, NEW.args, NEW.queue, NEW.priority::int, NEW.scheduled_at,
        NEW.max_attempts, NEW.key, NEW.unique_key, NEW.tags, NEW.meta, NEW.timeout_ms);
BEGIN
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION 'jobq.jobs: %', fault USING ERRCODE = 'invalid_parameter_value';
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
            PERFORM pg_notify('@channel@', 'stage');
        END IF;
    ELSE
        NEW.state := 'available';
        NEW.position := coalesce(NEW.position, @schema@.next_position());
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER jobs_before_insert BEFORE INSERT ON @schema@.jobs FOR EACH ROW
    WHEN (NEW.scheduled_at > now() OR NEW.state <> 'available' OR NEW.position IS NULL
          OR jsonb_typeof(NEW.args) <> 'object' OR jsonb_typeof(NEW.meta) <> 'object'
          OR NOT isfinite(NEW.scheduled_at)
          OR CASE WHEN array_ndims(NEW.tags) > 1 THEN true ELSE array_position(NEW.tags, NULL) IS NOT NULL END
          OR octet_length(NEW.key) NOT BETWEEN 1 AND 512 OR octet_length(NEW.unique_key) NOT BETWEEN 1 AND 512)
    EXECUTE FUNCTION @schema@.jobs_before_insert();

-- Wakes nodes that wait idle for these jobs' queues.
CREATE FUNCTION @schema@.jobs_after_insert() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM @schema@.idle) THEN
        PERFORM @schema@.wake(ARRAY(SELECT DISTINCT n.queue FROM inserted n WHERE n.position IS NOT NULL));
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER jobs_after_insert AFTER INSERT ON @schema@.jobs
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT
    EXECUTE FUNCTION @schema@.jobs_after_insert();
