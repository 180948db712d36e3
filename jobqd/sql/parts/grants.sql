    -- Who may what, of the things that jobq makes: the one table of it. jobqd/docs/roles.md shows it, `jobqd migrate up` and
    -- `migrate grant` make it so, doctor compares. A row: the sort of thing, names, a right, its columns (null: the whole
    -- thing), the roles without their jobq_. The owner may do all; another role, or PUBLIC, nothing at all. Things that
    -- no role has a right on are rows, too, unless their name begins with _: so jobq knows its own from what a user put
    -- into the schema.
    VALUES
    ('schema', '', 'USAGE', NULL, 'enqueuer worker viewer operator daemon'),
    ('function', 'version', 'EXECUTE', NULL, 'enqueuer worker viewer operator daemon'),

    -- Enqueue; a plain INSERT sets what a user may set, and calls what the defaults of the rest call.
    ('function', 'enqueue enqueue_many try_enqueue try_enqueue_many', 'EXECUTE', NULL, 'enqueuer operator'),
    ('table', 'jobs', 'INSERT', 'kind args queue priority scheduled_at max_attempts key unique_key tags meta timeout_ms expires_at',
     'enqueuer operator'),
    ('table', 'jobs', 'SELECT', 'id', 'enqueuer operator'),
    ('sequence', 'jobs_id_seq', 'USAGE', NULL, 'enqueuer operator'),
    ('sequence', 'jobs_position_seq', 'USAGE', NULL, 'enqueuer operator'),
    ('function', '_next_position _queue_attempts _default_attempts', 'EXECUTE', NULL, 'enqueuer operator'),
    ('table', 'queues', 'SELECT', 'max_attempts', 'enqueuer operator'),
    ('function', '_unique_hash', 'EXECUTE', NULL, 'enqueuer operator'),
    ('function', 'cron_next', 'EXECUTE', NULL, 'enqueuer viewer operator'),

    -- Complete a running job from within its handler's own transaction.
    ('function', 'complete', 'EXECUTE', NULL, 'worker'),

    -- Look.
    ('table', 'jobs', 'SELECT', NULL, 'viewer operator daemon'),
    ('table', 'finished_jobs _finished_completed _finished_failed all_jobs', 'SELECT', NULL, 'viewer operator'),
    ('table', '_finished_completed_default _finished_failed_default', 'SELECT', NULL, 'viewer operator daemon'),
    ('table', 'nodes _leader _idle queues queue_nodes _cancels refusals _hooks', 'SELECT', NULL, 'viewer operator daemon'),
    ('table', 'crons _cron_away _cron_jobs _uniques _progress _pruned _pruning settings schema_version', 'SELECT', NULL, 'viewer operator'),
    ('function', '_standing wait _readable', 'EXECUTE', NULL, 'viewer operator'),
    ('function', '_utc _ago _in_zone _time_of', 'EXECUTE', NULL, 'viewer operator'),

    -- Steer.
    ('function', 'cancel cancel_many retry retry_many delete delete_many purge', 'EXECUTE', NULL, 'operator'),
    ('function', 'pause resume scale', 'EXECUTE', NULL, 'operator'),
    ('function', 'cron_set cron_pause cron_resume cron_delete cron_run', 'EXECUTE', NULL, 'operator'),
    ('table', 'crons', 'INSERT', 'name schedule timezone kind args queue paused priority max_attempts timeout_ms meta tags missed '
     'overlap expires unique_by',
     'operator'),
    ('table', 'crons', 'UPDATE', 'schedule timezone kind args queue paused priority max_attempts timeout_ms meta tags missed '
     'overlap expires unique_by',
     'operator'),
    ('table', 'crons', 'DELETE', NULL, 'operator'),

    -- Run jobqd.
    ('table', 'jobs', 'UPDATE DELETE', NULL, 'daemon'),
    ('table', '_finished_completed', 'INSERT', NULL, 'daemon'),
    ('table', 'nodes _leader', 'INSERT UPDATE DELETE', NULL, 'daemon'),
    ('table', '_idle', 'INSERT DELETE', NULL, 'daemon'),
    ('sequence', 'jobs_position_seq', 'SELECT', NULL, 'daemon'),
    ('function', '_note_progress _expire', 'EXECUTE', NULL, 'daemon'),
    ('function', '_create_partitions _drop_partitions _prune_history _prune_uniques _queues_retention', 'EXECUTE', NULL, 'daemon'),
    ('function', '_cron_boot _cron_declare _cron_fire _cron_sweep _queue_declare', 'EXECUTE', NULL, 'daemon'),
    ('function', '_settle _settle_apart _claim_apart _stage _release _rescue _strays _sweep _lock_holders _hooks_declare _declared_sweep', 'EXECUTE', NULL,
     'daemon'),

    -- Within.
    ('sequence', 'nodes_id_seq', '', NULL, '')
