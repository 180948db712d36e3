-- The types, tables, indexes and views. What is internal begins with `_`.

-- The states, in Oban's words. libjobq/state.h holds the same list; a test compares the two.
CREATE TYPE @schema@.job_state AS ENUM
    ('scheduled', 'available', 'executing', 'retryable', 'suspended',
     'completed', 'cancelled', 'discarded');

-- ---- the cluster's settings, and those of queues ----

-- One row. An operator changes it by UPDATE; jobs that exist already are kept as they are.
CREATE TABLE @schema@.settings (
    singleton     boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    -- args and meta of a job together, and a result, as text. With the rest of the message it makes 4 MiB, which
    -- is jobqd's default for max_frame.
    max_job_bytes int NOT NULL DEFAULT 4190208 CHECK (max_job_bytes BETWEEN 65536 AND 67104768)
);
INSERT INTO @schema@.settings DEFAULT VALUES;

-- A queue's settings for the whole cluster; they override the configuration files. An enqueue without max_attempts takes
-- the queue's, else 20. Nodes whose configuration sets max_attempts write it here (_queue_declare), so that it
-- holds while no node runs. declared: what each node's configuration says, by the node's name.
CREATE TABLE @schema@.queues (
    name         text PRIMARY KEY,
    paused       boolean NOT NULL DEFAULT false,
    concurrency  int CHECK (concurrency >= 0),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    max_attempts int CHECK (max_attempts BETWEEN 1 AND 1000),
    declared     jsonb NOT NULL DEFAULT '{}'
);

-- A queue's settings on one node, by the node's name, whether or not the node is up. A row that sets nothing is deleted.
CREATE TABLE @schema@.queue_nodes (
    queue       text NOT NULL,
    node        text NOT NULL,
    paused      boolean NOT NULL DEFAULT false,
    concurrency int CHECK (concurrency BETWEEN 0 AND 1000),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (queue, node)
);

-- on_discard_kind, as the nodes' configurations say it: for each job of this queue that is discarded or expires, enqueue a job
-- of that kind into to_queue (null: the same queue). Several nodes with the same setting make one job.
CREATE TABLE @schema@._hooks (
    queue    text NOT NULL,
    node     text NOT NULL,
    kind     text NOT NULL,
    to_queue text,
    PRIMARY KEY (queue, node)
);

-- ---- jobs ----

CREATE SEQUENCE @schema@.jobs_id_seq;
CREATE SEQUENCE @schema@.jobs_position_seq;

-- Live jobs only. No index's column or predicate is one that a claim changes (state, attempt, attempted_at,
-- attempted_by), so that a claim is a HOT update; the fillfactor leaves room on the page for the claimed
-- version of each row. Fixed-width columns come first: no padding.
CREATE TABLE @schema@.jobs (
    id              bigint NOT NULL DEFAULT nextval('@schema@.jobs_id_seq'),
    position        bigint DEFAULT @schema@._next_position(),
    inserted_at     timestamptz NOT NULL DEFAULT now(),
    scheduled_at    timestamptz NOT NULL DEFAULT now(),
    attempted_at    timestamptz,
    attempted_by    bigint,
    state           @schema@.job_state NOT NULL DEFAULT 'available',
    attempt         int NOT NULL DEFAULT 0,
    max_attempts    int NOT NULL DEFAULT @schema@._default_attempts(),
    timeout_ms      int,
    priority        smallint NOT NULL DEFAULT 0,
    queue           text NOT NULL DEFAULT 'default',
    kind            text NOT NULL,
    args            jsonb NOT NULL DEFAULT '{}',
    meta            jsonb NOT NULL DEFAULT '{}',
    tags            text[] NOT NULL DEFAULT '{}',
    errors          jsonb NOT NULL DEFAULT '[]',
    key             text,
    unique_key      text,
    -- The attempt after which the job was retried by hand: earlier crashes do not count for max_crashes.
    retried_attempt int,
    -- A job that has not begun its first attempt by then is cancelled. A claim skips it after that time; the leader
    -- cancels it.
    expires_at      timestamptz,
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
CREATE INDEX jobs_expires ON @schema@.jobs (expires_at) WHERE expires_at IS NOT NULL;
CREATE UNIQUE INDEX jobs_unique_key ON @schema@.jobs (unique_key) WHERE unique_key IS NOT NULL;

-- Ended jobs, by class of state and by day (UTC): pruning is DROP TABLE of a day. The default partitions
-- take what ends while its day's partition does not exist yet, so that an ack never fails for want of one.
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
    result       jsonb,
    expires_at   timestamptz
) PARTITION BY LIST (state);
CREATE TABLE @schema@._finished_completed PARTITION OF @schema@.finished_jobs
    FOR VALUES IN ('completed') PARTITION BY RANGE (finished_at);
CREATE TABLE @schema@._finished_failed PARTITION OF @schema@.finished_jobs
    FOR VALUES IN ('cancelled', 'discarded') PARTITION BY RANGE (finished_at);
CREATE TABLE @schema@._finished_completed_default PARTITION OF @schema@._finished_completed DEFAULT;
CREATE TABLE @schema@._finished_failed_default PARTITION OF @schema@._finished_failed DEFAULT;

-- The history has no key: while it is published (FOR ALL TABLES), nothing could be deleted from it without this. Each
-- partition needs it for itself. It costs an INSERT, as by each ack, nothing.
ALTER TABLE @schema@.finished_jobs REPLICA IDENTITY FULL;
ALTER TABLE @schema@._finished_completed REPLICA IDENTITY FULL;
ALTER TABLE @schema@._finished_failed REPLICA IDENTITY FULL;
ALTER TABLE @schema@._finished_completed_default REPLICA IDENTITY FULL;
ALTER TABLE @schema@._finished_failed_default REPLICA IDENTITY FULL;

CREATE INDEX finished_jobs_id ON @schema@.finished_jobs USING brin (id)
    WITH (pages_per_range = 32, autosummarize = on);

-- The progress of the attempts that run, as their nodes report it, twice a second at most. Logged, although a crash could
-- lose it without harm: a replica cannot read an unlogged table, and all_jobs reads this one.
CREATE TABLE @schema@._progress (
    job_id  bigint PRIMARY KEY,
    attempt int NOT NULL,
    done    double precision NOT NULL,
    note    text,
    at      timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- A query that does not select progress does not pay for it.
CREATE VIEW @schema@.all_jobs AS
    SELECT id, state, queue, kind, args, meta, tags, priority, position, attempt, max_attempts, errors,
           key, unique_key, timeout_ms, inserted_at, scheduled_at, attempted_at, attempted_by,
           NULL::timestamptz AS finished_at, NULL::jsonb AS result,
           NULL::bigint AS run_us, NULL::bigint AS cpu_us, NULL::bigint AS max_rss_kb, expires_at,
           (SELECT jsonb_build_object('done', p.done, 'note', p.note, 'at', p.at)
              FROM @schema@._progress p
             WHERE p.job_id = j.id AND p.attempt = j.attempt AND j.state = 'executing') AS progress
      FROM @schema@.jobs j
    UNION ALL
    SELECT id, state, queue, kind, args, meta, tags, priority, position, attempt, max_attempts, errors,
           key, unique_key, timeout_ms, inserted_at, scheduled_at, attempted_at, attempted_by,
           finished_at, result, run_us, cpu_us, max_rss_kb, expires_at, NULL::jsonb
      FROM @schema@.finished_jobs;

-- The job that was last enqueued with each key of unique_by (_unique_hash). Whether that job is in the way of a new one
-- depends on the job itself and on the new one's states and period, so no row here changes when a job does.
-- held_at is the job's inserted_at. A row whose job is gone protects nothing; _prune_uniques() deletes it later. No
-- job has two rows.
CREATE TABLE @schema@._uniques (
    key     bytea NOT NULL,
    job_id  bigint NOT NULL,
    held_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT uniques_pkey PRIMARY KEY (key)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX uniques_job_id ON @schema@._uniques (job_id);

-- Requests to end running jobs: one row an attempt, for the node that runs it. Not a mark in the job's own row, because
-- the client's transaction would lock that row against the ack for as long as it stays open. The statement that settles
-- the attempt deletes the row; _cancel_again() deals with what is left over (the job was done first, or its attempt ended
-- before the request was committed). forget: the job is deleted, not cancelled (jobq.delete), and leaves no history.
CREATE TABLE @schema@._cancels (
    job_id       bigint NOT NULL,
    attempt      int NOT NULL,
    node_id      bigint NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    forget       boolean NOT NULL DEFAULT false,
    PRIMARY KEY (job_id, attempt, node_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- The jobs on which the database refused a statement: an operator looks here first, and the statements of apart.sql
-- leave these jobs out until again_at: for a minute, or for a moment if another session's lock was in the way (55P03).
-- outcome: how an attempt ended that could not be recorded (the arguments of _settle); the leader tries again to record
-- it until the database accepts it. Null: there is nothing to record.
CREATE TABLE @schema@.refusals (
    job_id   bigint PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT now(),
    tried_at timestamptz NOT NULL DEFAULT now(),
    again_at timestamptz NOT NULL DEFAULT now() + interval '1 minute',
    doing    text NOT NULL,     -- claim, settle, stage, expire, rescue, release, cancel, delete
    sqlstate text NOT NULL,
    message  text NOT NULL,
    outcome  jsonb
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- ---- nodes ----

-- One row a running jobqd. expires_at is its lease, by the database's clock. session counts its work connections and is
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
    upgrade    jsonb,               -- the last upgrade in place: {"at", "from", "to", "error"}
    reload     jsonb,               -- the last reload: {"at", "state": "begun", "done", "failed" or "refused", "leaving":
                                    -- old processes that still run a job, "error", "file": the configuration
                                    -- that it reads, "crons": why the database refuses a cron of that}
    booted     boolean NOT NULL DEFAULT false,  -- whether it has dealt with @reboot
    boots_left text[] NOT NULL DEFAULT '{}',    -- crons (@reboot) that this node has yet to enqueue: they were locked
    UNIQUE (id, session)
) WITH (fillfactor = 50);

-- The one leader, by a leased row (a session lock would not survive a pooler).
CREATE TABLE @schema@._leader (
    singleton  boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    node_id    bigint NOT NULL,
    expires_at timestamptz NOT NULL
);

-- Which node waits idle for which queue: an insert notifies only these. Unlogged, because it is a hint:
-- a crash may lose it, and the nodes' polling covers that until they write it again.
CREATE UNLOGGED TABLE @schema@._idle (
    queue   text NOT NULL,
    node_id bigint NOT NULL,
    PRIMARY KEY (queue, node_id)
);

-- ---- crons ----

CREATE TABLE @schema@.crons (
    name         text PRIMARY KEY,
    schedule     text NOT NULL,
    timezone     text NOT NULL DEFAULT 'UTC',
    kind         text NOT NULL,
    args         jsonb NOT NULL DEFAULT '{}',
    queue        text NOT NULL DEFAULT 'default',
    paused       boolean NOT NULL DEFAULT false,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    priority     int NOT NULL DEFAULT 0,
    max_attempts int,                           -- null: that of the queue, else 20
    timeout_ms   int,
    meta         jsonb NOT NULL DEFAULT '{}',
    tags         text[] NOT NULL DEFAULT '{}',
    missed       text NOT NULL DEFAULT 'once',  -- skip, once, all
    next_at      timestamptz,                   -- the next slot; null: paused, @reboot, or it could not be found
    last_at      timestamptz,                   -- the slot that was enqueued last
    last_job_id  bigint,
    error        text,                          -- why it could not be enqueued; tried again every minute
    failed_at    timestamptz,
    declared     jsonb,                         -- the section of a configuration that it was made from
    declared_by  jsonb NOT NULL DEFAULT '{}',   -- the nodes that have a section of that name: the hash of each one's last
    overlap      text NOT NULL DEFAULT 'allow', -- while a job of the cron is live: allow, skip, wait
    expires      interval,                      -- how long a job of the cron may wait for its first attempt
    unique_by    jsonb,                         -- as of enqueue
    skipped_at   timestamptz                    -- the newest slot that overlap or unique_by kept from making a job
);
CREATE INDEX crons_due ON @schema@.crons (next_at) WHERE next_at IS NOT NULL;

-- The jobs of crons: overlap asks here which of a cron's jobs are live, since anybody who enqueues can write meta. Of the
-- jobs that have ended the newest 100 of a cron stay, as one may be retried by hand. waits: the job is suspended until
-- no other one of its cron is live (_cron_promote); again_at: when to try that again after the database refused it.
CREATE TABLE @schema@._cron_jobs (
    job_id   bigint PRIMARY KEY,
    cron     text NOT NULL,
    waits    boolean NOT NULL DEFAULT false,
    again_at timestamptz
);
CREATE INDEX cron_jobs_cron ON @schema@._cron_jobs (cron, job_id);
CREATE INDEX cron_jobs_waits ON @schema@._cron_jobs (job_id) WHERE waits;

-- Nodes of crons.declared_by that are away, as _cron_sweep sees them: since when, and when it last looked.
CREATE TABLE @schema@._cron_away (
    node  text PRIMARY KEY,
    since timestamptz NOT NULL,
    seen  timestamptz NOT NULL
);

-- A parsed schedule. Bit n of a mask stands for the value n. @every has only every_ms, @reboot
-- only reboot.
CREATE TYPE @schema@._cron_fields AS (
    minutes       bigint,
    hours         bigint,
    days          bigint,       -- 1 to 31; bit 0: L
    months        bigint,
    weekdays      bigint,       -- 0 to 6, 0 is Sunday; bits 8 to 14: the last one of the month
    either        boolean,      -- both days and weekdays are restricted: one of them is enough
    every_ms      bigint,
    reboot        boolean
);

-- ---- retention ----

-- A rule (retention.sql) has deleted from this past day's partition all that it ever will: it is not read again.
CREATE TABLE @schema@._pruned (
    partition text NOT NULL,
    rule      text NOT NULL,
    PRIMARY KEY (partition, rule)
);

-- How far the present round of pruning has come: one row, locked by the session that prunes.
CREATE TABLE @schema@._pruning (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    policy    jsonb NOT NULL,
    rules     jsonb NOT NULL DEFAULT '[]',  -- rule, queue (null: every one), states, at, id: rows before these two are deleted
    todo      text[] NOT NULL DEFAULT '{}', -- partitions; the first one is under way ...
    next_page bigint NOT NULL DEFAULT 0,    -- ... from this page on
    left_some boolean NOT NULL DEFAULT false -- ... and some rows are still there: locked, or refused
);
