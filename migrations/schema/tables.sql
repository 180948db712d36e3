-- The types, tables, indexes and the view. Internal names begin with `_`.

-- The states have Oban's names. libjobq/state.h holds the same list; a test compares the two.
CREATE TYPE @schema@.job_state AS ENUM
    ('scheduled', 'available', 'executing', 'retryable', 'suspended',
     'completed', 'cancelled', 'discarded');
COMMENT ON TYPE @schema@.job_state IS
'The state of a job. A live job is scheduled, available, executing, retryable or suspended.
A finished job is completed, cancelled or discarded.';

-- ---- settings of the cluster and of queues ----

CREATE TABLE @schema@.settings (
    singleton     boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    -- With the rest of the message, the default makes 4 MiB, which is the default of jobqd's max_frame.
    max_job_bytes int NOT NULL DEFAULT 4190208 CHECK (max_job_bytes BETWEEN 65536 AND 67104768)
);
COMMENT ON TABLE @schema@.settings IS
    'Settings of the whole schema, in one row. The schema''s owner changes it by UPDATE; existing jobs stay as they are.';
COMMENT ON COLUMN @schema@.settings.singleton IS 'Always true: the table has one row.';
COMMENT ON COLUMN @schema@.settings.max_job_bytes IS
    'The most bytes that a job''s args and meta take together as JSON text, and a result: 65536 to 67104768.';
INSERT INTO @schema@.settings DEFAULT VALUES;

-- Nodes whose configuration sets max_attempts write it here (_queue_declare), so that it holds while no node runs.
CREATE TABLE @schema@.queues (
    name         text PRIMARY KEY,
    paused       boolean NOT NULL DEFAULT false,
    concurrency  int CHECK (concurrency >= 0),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    max_attempts int CHECK (max_attempts BETWEEN 1 AND 1000),
    declared     jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE @schema@.queues IS
'Settings of a queue for the whole cluster. They override the configuration of the nodes. Set paused and concurrency with
pause(), resume() and scale(); nodes write max_attempts. A queue without a row runs as it is configured.';
COMMENT ON COLUMN @schema@.queues.name IS 'The queue.';
COMMENT ON COLUMN @schema@.queues.paused IS 'Whether every node has stopped claiming jobs of this queue.';
COMMENT ON COLUMN @schema@.queues.concurrency IS
    'Workers on each node that serves the queue, 0 to 1000; null: as many as the node''s configuration says.';
COMMENT ON COLUMN @schema@.queues.updated_at IS 'When the row was last changed.';
COMMENT ON COLUMN @schema@.queues.max_attempts IS
    'The max_attempts of jobs that are enqueued without one, 1 to 1000; null: 20. Nodes write the greatest of declared.';
COMMENT ON COLUMN @schema@.queues.declared IS
    'The max_attempts that the configuration of each node sets, by the node''s name.';

CREATE TABLE @schema@.queue_nodes (
    queue       text NOT NULL,
    node        text NOT NULL,
    paused      boolean NOT NULL DEFAULT false,
    concurrency int CHECK (concurrency BETWEEN 0 AND 1000),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (queue, node)
);
COMMENT ON TABLE @schema@.queue_nodes IS
'Settings of a queue on one node, whether or not that node is up. pause(), resume() and scale() with a node write them.
A row that sets nothing is deleted.';
COMMENT ON COLUMN @schema@.queue_nodes.queue IS 'The queue.';
COMMENT ON COLUMN @schema@.queue_nodes.node IS 'The node''s name.';
COMMENT ON COLUMN @schema@.queue_nodes.paused IS
    'Whether this node has stopped claiming jobs of this queue. The node also stops while the queue is paused on all nodes.';
COMMENT ON COLUMN @schema@.queue_nodes.concurrency IS
    'Workers of this queue on this node, 0 to 1000; null: as for all nodes.';
COMMENT ON COLUMN @schema@.queue_nodes.updated_at IS 'When the row was last changed.';

-- A null to_queue means the ended job's own queue. Several nodes with the same setting make one job.
CREATE TABLE @schema@._hooks (
    queue    text NOT NULL,
    node     text NOT NULL,
    kind     text NOT NULL,
    to_queue text,
    PRIMARY KEY (queue, node)
);
COMMENT ON TABLE @schema@._hooks IS
    'on_discard_kind of each node''s configuration: the kind of job that a discarded or expired job of the queue enqueues.';

-- ---- jobs ----

CREATE SEQUENCE @schema@.jobs_id_seq;
CREATE SEQUENCE @schema@.jobs_position_seq;

-- No index has a column or a predicate that a claim changes (state, attempt, attempted_at, attempted_by), so that a claim is
-- a HOT update. The fillfactor leaves room on the page for the claimed version of each row. Fixed-width columns come first,
-- so that there is no padding.
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
    retried_attempt int,
    expires_at      timestamptz,
    CONSTRAINT jobs_pkey PRIMARY KEY (id),
    CONSTRAINT jobs_priority_is_0_to_9 CHECK (priority BETWEEN 0 AND 9),
    CONSTRAINT jobs_attempt_is_not_negative CHECK (attempt >= 0),
    CONSTRAINT jobs_max_attempts_is_1_to_1000 CHECK (max_attempts BETWEEN 1 AND 1000),
    CONSTRAINT jobs_timeout_ms_is_positive CHECK (timeout_ms > 0),
    CONSTRAINT jobs_queue_is_1_to_128_bytes CHECK (octet_length(queue) BETWEEN 1 AND 128),
    CONSTRAINT jobs_kind_is_1_to_128_bytes CHECK (octet_length(kind) BETWEEN 1 AND 128),
    CONSTRAINT jobs_is_live CHECK (state < 'completed'),
    -- Without a position a claimable job would never be found, so such a row cannot exist.
    CONSTRAINT jobs_position_belongs_to_state
        CHECK ((position IS NOT NULL) = (state IN ('available', 'executing')))
) WITH (fillfactor = 45, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE @schema@.jobs IS
'Live jobs: scheduled, available, executing, retryable or suspended. A finished job moves to finished_jobs; the view all_jobs
shows both. Applications add jobs with enqueue() or a plain INSERT, in their own transactions.';
COMMENT ON COLUMN @schema@.jobs.id IS 'The job''s id, 1 to 2^53 - 1. It stays the same when the job finishes or is retried.';
COMMENT ON COLUMN @schema@.jobs.position IS
    'The job''s place in the line of its queue and priority; null while no node may claim it.';
COMMENT ON COLUMN @schema@.jobs.inserted_at IS 'When the job was enqueued.';
COMMENT ON COLUMN @schema@.jobs.scheduled_at IS 'When the job is due. No node claims it before this time.';
COMMENT ON COLUMN @schema@.jobs.attempted_at IS 'When the last attempt was claimed; null: no attempt yet.';
COMMENT ON COLUMN @schema@.jobs.attempted_by IS 'The node that claimed the last attempt (nodes.id); null: no attempt yet.';
COMMENT ON COLUMN @schema@.jobs.state IS 'The state: scheduled, available, executing, retryable or suspended.';
COMMENT ON COLUMN @schema@.jobs.attempt IS
    'The number of the last attempt; 0: none yet. Released and snoozed attempts are not counted.';
COMMENT ON COLUMN @schema@.jobs.max_attempts IS 'A job whose attempt of this number fails is discarded. 1 to 1000.';
COMMENT ON COLUMN @schema@.jobs.timeout_ms IS
    'The deadline of each attempt, in ms from its start, 1 to 2147483647; null: the timeout of the queue.';
COMMENT ON COLUMN @schema@.jobs.priority IS '0 (first) to 9.';
COMMENT ON COLUMN @schema@.jobs.queue IS 'The queue, 1 to 128 bytes.';
COMMENT ON COLUMN @schema@.jobs.kind IS 'The name of the job''s handler, 1 to 128 bytes.';
COMMENT ON COLUMN @schema@.jobs.args IS 'The arguments for the handler, a JSON object.';
COMMENT ON COLUMN @schema@.jobs.meta IS 'More data for the handler and for operators, a JSON object.';
COMMENT ON COLUMN @schema@.jobs.tags IS 'Texts to find the job by, at most 65536 bytes together.';
COMMENT ON COLUMN @schema@.jobs.errors IS
    'An array with an object for each failed attempt: attempt, at, kind, error and more; the first 5 and the newest 95.';
COMMENT ON COLUMN @schema@.jobs.key IS 'The application''s own grouping, 1 to 512 bytes; null: none.';
COMMENT ON COLUMN @schema@.jobs.unique_key IS 'No other live job has this key, 1 to 512 bytes; null: none.';
COMMENT ON COLUMN @schema@.jobs.retried_attempt IS
    'The attempt after which the job was last retried by hand. Earlier crashes do not count for max_crashes.';
COMMENT ON COLUMN @schema@.jobs.expires_at IS
    'A job that has not begun its first attempt by then is no longer claimed, and the leader cancels it; null: never.';

ALTER SEQUENCE @schema@.jobs_id_seq OWNED BY @schema@.jobs.id;
ALTER SEQUENCE @schema@.jobs_position_seq OWNED BY @schema@.jobs.position;

CREATE INDEX jobs_claim ON @schema@.jobs (queue, priority, position) WHERE position IS NOT NULL;
CREATE INDEX jobs_due ON @schema@.jobs (scheduled_at) WHERE position IS NULL;
CREATE INDEX jobs_expires ON @schema@.jobs (expires_at) WHERE expires_at IS NOT NULL;
CREATE UNIQUE INDEX jobs_unique_key ON @schema@.jobs (unique_key) WHERE unique_key IS NOT NULL;

-- The default partitions take jobs that end before the partition of their day exists, so that an ack never fails for lack of
-- a partition.
CREATE TABLE @schema@.finished_jobs (
    id           bigint NOT NULL,
    position     bigint,
    inserted_at  timestamptz NOT NULL,
    scheduled_at timestamptz NOT NULL,
    attempted_at timestamptz,
    attempted_by bigint,
    finished_at  timestamptz NOT NULL,
    run_us       bigint,
    cpu_us       bigint,
    max_rss_kb   bigint,
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
COMMENT ON TABLE @schema@.finished_jobs IS
'Finished jobs: completed, cancelled or discarded. The table is partitioned by class of state and by the day of finished_at
(UTC), and the leader drops whole days. Completed jobs of a queue with keep = none are not recorded. retry() moves a job back
to jobs.';
COMMENT ON COLUMN @schema@.finished_jobs.id IS 'The job''s id, 1 to 2^53 - 1.';
COMMENT ON COLUMN @schema@.finished_jobs.position IS 'Null: a finished job has no place in a line.';
COMMENT ON COLUMN @schema@.finished_jobs.inserted_at IS 'When the job was enqueued.';
COMMENT ON COLUMN @schema@.finished_jobs.scheduled_at IS 'When the job was due.';
COMMENT ON COLUMN @schema@.finished_jobs.attempted_at IS 'When the last attempt was claimed; null: there was none.';
COMMENT ON COLUMN @schema@.finished_jobs.attempted_by IS
    'The node that claimed the last attempt (nodes.id); null: there was none.';
COMMENT ON COLUMN @schema@.finished_jobs.finished_at IS 'When the job finished.';
COMMENT ON COLUMN @schema@.finished_jobs.run_us IS 'Run time of the last attempt in microseconds; null: not measured.';
COMMENT ON COLUMN @schema@.finished_jobs.cpu_us IS
    'Processor time of the last attempt, user and system, in microseconds; null: not measured.';
COMMENT ON COLUMN @schema@.finished_jobs.max_rss_kb IS
    'Peak resident memory of the last attempt in KiB; null: not measured.';
COMMENT ON COLUMN @schema@.finished_jobs.state IS 'The state: completed, cancelled or discarded.';
COMMENT ON COLUMN @schema@.finished_jobs.attempt IS 'The number of the last attempt; 0: there was none.';
COMMENT ON COLUMN @schema@.finished_jobs.max_attempts IS 'The number of attempts that the job could have, 1 to 1000.';
COMMENT ON COLUMN @schema@.finished_jobs.timeout_ms IS
    'The deadline of each attempt, in ms from its start; null: the timeout of the queue.';
COMMENT ON COLUMN @schema@.finished_jobs.priority IS '0 (first) to 9.';
COMMENT ON COLUMN @schema@.finished_jobs.queue IS 'The queue.';
COMMENT ON COLUMN @schema@.finished_jobs.kind IS 'The name of the job''s handler.';
COMMENT ON COLUMN @schema@.finished_jobs.args IS 'The arguments for the handler, a JSON object.';
COMMENT ON COLUMN @schema@.finished_jobs.meta IS 'More data for the handler and for operators, a JSON object.';
COMMENT ON COLUMN @schema@.finished_jobs.tags IS 'Texts to find the job by.';
COMMENT ON COLUMN @schema@.finished_jobs.errors IS
    'An array with an object for each failed attempt: attempt, at, kind, error and more.';
COMMENT ON COLUMN @schema@.finished_jobs.key IS 'The application''s own grouping; null: none.';
COMMENT ON COLUMN @schema@.finished_jobs.unique_key IS 'The key that no other live job could have; null: none.';
COMMENT ON COLUMN @schema@.finished_jobs.result IS 'The result of the handler, JSON; null: none.';
COMMENT ON COLUMN @schema@.finished_jobs.expires_at IS
    'When the job would have expired without its first attempt; null: never.';
CREATE TABLE @schema@._finished_completed PARTITION OF @schema@.finished_jobs
    FOR VALUES IN ('completed') PARTITION BY RANGE (finished_at);
COMMENT ON TABLE @schema@._finished_completed IS
    'The completed jobs of finished_jobs, partitioned by the day of finished_at (UTC).';
CREATE TABLE @schema@._finished_failed PARTITION OF @schema@.finished_jobs
    FOR VALUES IN ('cancelled', 'discarded') PARTITION BY RANGE (finished_at);
COMMENT ON TABLE @schema@._finished_failed IS
    'The cancelled and discarded jobs of finished_jobs, partitioned by the day of finished_at (UTC).';
CREATE TABLE @schema@._finished_completed_default PARTITION OF @schema@._finished_completed DEFAULT;
COMMENT ON TABLE @schema@._finished_completed_default IS
    'Completed jobs that finished before the partition of their day existed.';
CREATE TABLE @schema@._finished_failed_default PARTITION OF @schema@._finished_failed DEFAULT;
COMMENT ON TABLE @schema@._finished_failed_default IS
    'Cancelled and discarded jobs that finished before the partition of their day existed.';

-- The history has no key. Without this setting no row could be deleted from it while it is published (FOR ALL TABLES). Each
-- partition needs the setting for itself. It costs an INSERT, and so an ack, nothing.
ALTER TABLE @schema@.finished_jobs REPLICA IDENTITY FULL;
ALTER TABLE @schema@._finished_completed REPLICA IDENTITY FULL;
ALTER TABLE @schema@._finished_failed REPLICA IDENTITY FULL;
ALTER TABLE @schema@._finished_completed_default REPLICA IDENTITY FULL;
ALTER TABLE @schema@._finished_failed_default REPLICA IDENTITY FULL;

CREATE INDEX finished_jobs_id ON @schema@.finished_jobs USING brin (id)
    WITH (pages_per_range = 32, autosummarize = on);

-- The table is logged, although losing it in a crash would do no harm: a replica cannot read an unlogged table, and all_jobs
-- reads this one.
CREATE TABLE @schema@._progress (
    job_id  bigint PRIMARY KEY,
    attempt int NOT NULL,
    done    double precision NOT NULL,
    note    text,
    at      timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE @schema@._progress IS 'The progress of running attempts, which their nodes report at most twice a second.';

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
COMMENT ON VIEW @schema@.all_jobs IS
'All jobs, live and finished: jobs and finished_jobs together, and the progress of executing jobs. A query sees a job once,
even while it finishes or is retried. Columns that one of the two tables lacks are null for its jobs.';
COMMENT ON COLUMN @schema@.all_jobs.id IS 'The job''s id, 1 to 2^53 - 1.';
COMMENT ON COLUMN @schema@.all_jobs.state IS 'The state; see the type job_state.';
COMMENT ON COLUMN @schema@.all_jobs.queue IS 'The queue.';
COMMENT ON COLUMN @schema@.all_jobs.kind IS 'The name of the job''s handler.';
COMMENT ON COLUMN @schema@.all_jobs.args IS 'The arguments for the handler, a JSON object.';
COMMENT ON COLUMN @schema@.all_jobs.meta IS 'More data for the handler and for operators, a JSON object.';
COMMENT ON COLUMN @schema@.all_jobs.tags IS 'Texts to find the job by.';
COMMENT ON COLUMN @schema@.all_jobs.priority IS '0 (first) to 9.';
COMMENT ON COLUMN @schema@.all_jobs.position IS
    'The job''s place in the line of its queue and priority; null while no node may claim it.';
COMMENT ON COLUMN @schema@.all_jobs.attempt IS
    'The number of the last attempt; 0: none yet. Released and snoozed attempts are not counted.';
COMMENT ON COLUMN @schema@.all_jobs.max_attempts IS 'A job whose attempt of this number fails is discarded. 1 to 1000.';
COMMENT ON COLUMN @schema@.all_jobs.errors IS
    'An array with an object for each failed attempt: attempt, at, kind, error and more.';
COMMENT ON COLUMN @schema@.all_jobs.key IS 'The application''s own grouping; null: none.';
COMMENT ON COLUMN @schema@.all_jobs.unique_key IS 'No other live job has this key; null: none.';
COMMENT ON COLUMN @schema@.all_jobs.timeout_ms IS
    'The deadline of each attempt, in ms from its start; null: the timeout of the queue.';
COMMENT ON COLUMN @schema@.all_jobs.inserted_at IS 'When the job was enqueued.';
COMMENT ON COLUMN @schema@.all_jobs.scheduled_at IS 'When the job is due, or was.';
COMMENT ON COLUMN @schema@.all_jobs.attempted_at IS 'When the last attempt was claimed; null: no attempt yet.';
COMMENT ON COLUMN @schema@.all_jobs.attempted_by IS
    'The node that claimed the last attempt (nodes.id); null: no attempt yet.';
COMMENT ON COLUMN @schema@.all_jobs.finished_at IS 'When the job finished; null: it is live.';
COMMENT ON COLUMN @schema@.all_jobs.result IS 'The result of the handler, JSON; null: none.';
COMMENT ON COLUMN @schema@.all_jobs.run_us IS
    'Run time of the last attempt in microseconds; null: the job is live, or not measured.';
COMMENT ON COLUMN @schema@.all_jobs.cpu_us IS
    'Processor time of the last attempt, user and system, in microseconds; null: the job is live, or not measured.';
COMMENT ON COLUMN @schema@.all_jobs.max_rss_kb IS
    'Peak resident memory of the last attempt in KiB; null: the job is live, or not measured.';
COMMENT ON COLUMN @schema@.all_jobs.expires_at IS
    'A job that has not begun its first attempt by then is cancelled; null: never.';
COMMENT ON COLUMN @schema@.all_jobs.progress IS
    'The last report of an executing attempt: an object with done (0 to 1), note and at; null: none.';

-- Whether that job conflicts with a new one depends on the job itself, and on the states and the period of the new one. So
-- no row here changes when a job does. held_at is the job's inserted_at. A row whose job is gone protects nothing;
-- _prune_uniques() deletes it later. No job has two rows.
CREATE TABLE @schema@._uniques (
    key     bytea NOT NULL,
    job_id  bigint NOT NULL,
    held_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT uniques_pkey PRIMARY KEY (key)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
COMMENT ON TABLE @schema@._uniques IS 'The job that was last enqueued with each key of unique_by (_unique_hash).';
CREATE INDEX uniques_job_id ON @schema@._uniques (job_id);

-- There is one row an attempt. A request is not a mark in the job's own row, because the client's transaction would then
-- lock that row against the ack for as long as it stays open. The statement that settles the attempt deletes the row.
-- _cancel_again() handles the rows that are left over: the job finished first, or its attempt ended before the request was
-- committed. forget: the job is deleted, not cancelled (jobq.delete), and leaves no history.
CREATE TABLE @schema@._cancels (
    job_id       bigint NOT NULL,
    attempt      int NOT NULL,
    node_id      bigint NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    forget       boolean NOT NULL DEFAULT false,
    PRIMARY KEY (job_id, attempt, node_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE @schema@._cancels IS 'Requests to stop running attempts, for the nodes that run them.';

-- The functions of apart.sql leave these jobs out until again_at. outcome holds the arguments of _settle.
CREATE TABLE @schema@.refusals (
    job_id   bigint PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT now(),
    tried_at timestamptz NOT NULL DEFAULT now(),
    again_at timestamptz NOT NULL DEFAULT now() + interval '1 minute',
    doing    text NOT NULL,
    sqlstate text NOT NULL,
    message  text NOT NULL,
    outcome  jsonb
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE @schema@.refusals IS
'Jobs on which the database refused a statement of jobqd, or whose row another session had locked. Look here first when a
job does not move. Such a job stops no other; jobqd tries it again by itself, and deletes the row when the job moves on.';
COMMENT ON COLUMN @schema@.refusals.job_id IS 'The job.';
COMMENT ON COLUMN @schema@.refusals.at IS 'When the database first refused it.';
COMMENT ON COLUMN @schema@.refusals.tried_at IS 'When jobqd last tried.';
COMMENT ON COLUMN @schema@.refusals.again_at IS
    'Until this time jobqd leaves the job out: a minute, or a moment if a lock of another session was in the way (55P03).';
COMMENT ON COLUMN @schema@.refusals.doing IS
    'The statement that was refused: claim, settle, stage, expire, rescue, release or adopt.';
COMMENT ON COLUMN @schema@.refusals.sqlstate IS 'The SQLSTATE of the error.';
COMMENT ON COLUMN @schema@.refusals.message IS 'The message of the error.';
COMMENT ON COLUMN @schema@.refusals.outcome IS
    'How an attempt ended that could not be recorded; the leader tries until it is accepted. Null: nothing to record.';

-- ---- nodes ----

-- session is part of a unique key on purpose: a claim holds FOR KEY SHARE on (id, session). So a new session, or the row's
-- deletion by the lifeline, waits for a claim in flight and shuts out any later one.
CREATE TABLE @schema@.nodes (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session    bigint NOT NULL DEFAULT 0,
    name       text NOT NULL UNIQUE,
    host       text NOT NULL,
    pid        int NOT NULL,
    pid_start  bigint NOT NULL,
    version    text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    renewed_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    queues     jsonb NOT NULL DEFAULT '{}',
    upgrade    jsonb,
    reload     jsonb,
    booted     boolean NOT NULL DEFAULT false,
    boots_left text[] NOT NULL DEFAULT '{}',
    UNIQUE (id, session)
) WITH (fillfactor = 50);
COMMENT ON TABLE @schema@.nodes IS
'Nodes: one row for each running jobqd. A node holds its jobs by its lease and renews that every third of it. The row of a
dead node stays, renamed to removed-ID, while some of its jobs cannot be given back.';
COMMENT ON COLUMN @schema@.nodes.id IS 'The node''s id, which jobs.attempted_by names.';
COMMENT ON COLUMN @schema@.nodes.session IS 'Counts the node''s work connections; less than 0: the node was declared dead.';
COMMENT ON COLUMN @schema@.nodes.name IS 'The node''s name, by default its host name.';
COMMENT ON COLUMN @schema@.nodes.host IS 'The machine, its boot and the pid namespace, within which pid has a meaning.';
COMMENT ON COLUMN @schema@.nodes.pid IS 'The process id of jobqd.';
COMMENT ON COLUMN @schema@.nodes.pid_start IS
    'When that process started, in clock ticks after boot; it tells the process from a later one with the same pid.';
COMMENT ON COLUMN @schema@.nodes.version IS 'The version of jobqd.';
COMMENT ON COLUMN @schema@.nodes.started_at IS 'When the node registered.';
COMMENT ON COLUMN @schema@.nodes.renewed_at IS 'When the node last renewed its lease.';
COMMENT ON COLUMN @schema@.nodes.expires_at IS 'When the lease expires, by the database''s clock.';
COMMENT ON COLUMN @schema@.nodes.queues IS
    'The queues of the node, by name: workers wanted, ready and busy, restarts, crashes, backoff_ms, trouble and more.';
COMMENT ON COLUMN @schema@.nodes.upgrade IS 'The last upgrade in place, an object with at, from, to and error; null: none.';
COMMENT ON COLUMN @schema@.nodes.reload IS
'The last reload, an object with at, state (begun, done, failed or refused), leaving (old processes that still run a job)
and error; also file, the configuration that the node reads, and crons, why the database refuses a cron of it.';
COMMENT ON COLUMN @schema@.nodes.booted IS 'Whether the node has handled the crons that run at reboot.';
COMMENT ON COLUMN @schema@.nodes.boots_left IS
    'Crons that run at reboot and that this node has yet to enqueue: another session had locked them.';

-- A leased row, because a session lock would not survive a pooler.
CREATE TABLE @schema@._leader (
    singleton  boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    node_id    bigint NOT NULL,
    expires_at timestamptz NOT NULL
);
COMMENT ON TABLE @schema@._leader IS 'The one leader and its lease.';

-- The table is unlogged, because it is a hint: a crash may lose it, and the nodes' polling covers that until they write it
-- again.
CREATE UNLOGGED TABLE @schema@._idle (
    queue   text NOT NULL,
    node_id bigint NOT NULL,
    PRIMARY KEY (queue, node_id)
);
COMMENT ON TABLE @schema@._idle IS 'Which node waits idle for which queue: an insert notifies only these.';

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
    max_attempts int,
    timeout_ms   int,
    meta         jsonb NOT NULL DEFAULT '{}',
    tags         text[] NOT NULL DEFAULT '{}',
    missed       text NOT NULL DEFAULT 'once',
    next_at      timestamptz,
    last_at      timestamptz,
    last_job_id  bigint,
    error        text,
    failed_at    timestamptz,
    declared     jsonb,
    declared_by  jsonb NOT NULL DEFAULT '{}',
    overlap      text NOT NULL DEFAULT 'allow',
    expires      interval,
    unique_by    jsonb,
    skipped_at   timestamptz
);
COMMENT ON TABLE @schema@.crons IS
'Periodic jobs. While a node runs, each time of the schedule (a slot) enqueues at most one job, however many nodes there are.
cron_set(), [cron NAME] sections of the configuration, and plain INSERT, UPDATE and DELETE write it; a trigger checks the row
and sets next_at. A change takes effect within a second.';
COMMENT ON COLUMN @schema@.crons.name IS 'The cron''s name, 1 to 128 bytes without control characters.';
COMMENT ON COLUMN @schema@.crons.schedule IS
    'Five fields (minute, hour, day of month, month, day of week), or one of the names that cron_next() describes.';
COMMENT ON COLUMN @schema@.crons.timezone IS 'The time zone whose clocks the schedule follows, such as Europe/Stockholm.';
COMMENT ON COLUMN @schema@.crons.kind IS 'The kind of its jobs.';
COMMENT ON COLUMN @schema@.crons.args IS 'The args of its jobs.';
COMMENT ON COLUMN @schema@.crons.queue IS 'The queue of its jobs.';
COMMENT ON COLUMN @schema@.crons.paused IS 'Whether the cron enqueues nothing.';
COMMENT ON COLUMN @schema@.crons.updated_at IS 'When the cron was last set, paused or resumed.';
COMMENT ON COLUMN @schema@.crons.priority IS 'The priority of its jobs, 0 (first) to 9.';
COMMENT ON COLUMN @schema@.crons.max_attempts IS
    'The max_attempts of its jobs, 1 to 1000; null: that of the queue, else 20.';
COMMENT ON COLUMN @schema@.crons.timeout_ms IS 'The timeout_ms of its jobs; null: the timeout of the queue.';
COMMENT ON COLUMN @schema@.crons.meta IS
    'The meta of its jobs; each job''s meta also gets cron (the name) and cron_at (the slot).';
COMMENT ON COLUMN @schema@.crons.tags IS 'The tags of its jobs.';
COMMENT ON COLUMN @schema@.crons.missed IS
    'What to do about slots that came while no node ran: once (enqueue the newest), all, or skip (none over a minute late).';
COMMENT ON COLUMN @schema@.crons.next_at IS
    'The next slot; null: the cron is paused or runs at reboot, or the slot could not be found.';
COMMENT ON COLUMN @schema@.crons.last_at IS 'The slot that was enqueued last.';
COMMENT ON COLUMN @schema@.crons.last_job_id IS 'The job that was enqueued last.';
COMMENT ON COLUMN @schema@.crons.error IS
    'Why the last slot could not be enqueued; it is tried again every minute. Null: no error.';
COMMENT ON COLUMN @schema@.crons.failed_at IS 'When it last could not be enqueued.';
COMMENT ON COLUMN @schema@.crons.declared IS
    'The section of a node''s configuration that the row was made from; null: it was made by SQL.';
COMMENT ON COLUMN @schema@.crons.declared_by IS
    'The nodes whose configuration has a section of this name, each with the hash of its last one.';
COMMENT ON COLUMN @schema@.crons.overlap IS
    'What to do about a slot while a job of the cron is live: allow (enqueue), skip (enqueue none) or wait (one job waits).';
COMMENT ON COLUMN @schema@.crons.expires IS
    'How long a job may wait for its first attempt, 1 ms to 3650 days; null: no limit.';
COMMENT ON COLUMN @schema@.crons.unique_by IS 'The unique_by of its jobs, as for enqueue(); null: none.';
COMMENT ON COLUMN @schema@.crons.skipped_at IS 'The newest slot for which overlap or unique_by allowed no job.';
CREATE INDEX crons_due ON @schema@.crons (next_at) WHERE next_at IS NOT NULL;

-- overlap looks here for the live jobs of a cron, not in meta, because anyone who enqueues can write meta. Of a cron's
-- finished jobs the newest 100 stay, since one of them may be retried by hand. waits: the job is suspended until no other
-- job of its cron is live (_cron_promote). again_at: when to try that again after the database refused it.
CREATE TABLE @schema@._cron_jobs (
    job_id   bigint PRIMARY KEY,
    cron     text NOT NULL,
    waits    boolean NOT NULL DEFAULT false,
    again_at timestamptz
);
COMMENT ON TABLE @schema@._cron_jobs IS 'The jobs that crons have enqueued.';
CREATE INDEX cron_jobs_cron ON @schema@._cron_jobs (cron, job_id);
CREATE INDEX cron_jobs_waits ON @schema@._cron_jobs (job_id) WHERE waits;

CREATE TABLE @schema@._cron_away (
    node  text PRIMARY KEY,
    since timestamptz NOT NULL,
    seen  timestamptz NOT NULL
);
COMMENT ON TABLE @schema@._cron_away IS
    'Nodes of crons.declared_by that have no lease, as _cron_sweep sees them: since when, and when it last looked.';

-- Bit n of a mask stands for the value n. @every sets only every_ms, @reboot only reboot.
CREATE TYPE @schema@._cron_fields AS (
    minutes       bigint,
    hours         bigint,
    days          bigint,       -- 1 to 31; bit 0: L
    months        bigint,
    weekdays      bigint,       -- 0 to 6, 0 is Sunday; bits 8 to 14: the last one of the month
    either        boolean,      -- days and weekdays are both restricted: one of them is enough
    every_ms      bigint,
    reboot        boolean
);
COMMENT ON TYPE @schema@._cron_fields IS 'A parsed schedule.';

-- ---- retention ----

CREATE TABLE @schema@._pruned (
    partition text NOT NULL,
    rule      text NOT NULL,
    PRIMARY KEY (partition, rule)
);
COMMENT ON TABLE @schema@._pruned IS
    'Rules (retention.sql) that have deleted all they ever will from a past day''s partition, which is not read again.';

CREATE TABLE @schema@._pruning (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    policy    jsonb NOT NULL,
    rules     jsonb NOT NULL DEFAULT '[]',  -- rule, queue (null: all), states, at, id: rows before (at, id) are deleted
    todo      text[] NOT NULL DEFAULT '{}', -- the partitions to read; the first one is in progress ...
    next_page bigint NOT NULL DEFAULT 0,    -- ... from this page on
    left_some boolean NOT NULL DEFAULT false -- ... and some of its rows are still there: locked, or refused
);
COMMENT ON TABLE @schema@._pruning IS
    'How far the current round of pruning has come: one row, which the session that prunes locks.';
