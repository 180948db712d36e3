    -- Who may what, of the things that jobq makes: the one table of it. jobqd/docs/roles.md shows it, `jobqd migrate up` and
    -- `migrate grant` make it so, doctor compares. A row: the sort of thing, names, a right, its columns (null: the whole
    -- thing), the roles without their jobq_. The owner may do all; another role, or PUBLIC, nothing at all. Things that
    -- no role has a right on are rows, too: by them jobq knows its own from what a user put into the schema. Of those
    -- that begin with _, and of the partitions of days, it knows without.
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
    ('function', 'next_position _queue_attempts _default_attempts', 'EXECUTE', NULL, 'enqueuer operator'),
    ('table', 'queues', 'SELECT', 'max_attempts', 'enqueuer operator'),
    ('function', 'unique_hash', 'EXECUTE', NULL, 'enqueuer operator'),
    ('function', 'cron_next', 'EXECUTE', NULL, 'enqueuer viewer operator'),

    -- Complete a running job from within its handler's own transaction.
    ('function', 'complete', 'EXECUTE', NULL, 'worker'),

    -- Look.
    ('table', 'jobs', 'SELECT', NULL, 'viewer operator daemon'),
    ('table', 'finished_jobs finished_completed finished_failed all_jobs', 'SELECT', NULL, 'viewer operator'),
    ('table', 'finished_completed_default finished_failed_default', 'SELECT', NULL, 'viewer operator daemon'),
    ('table', 'nodes leader idle queues queue_nodes cancels refusals hooks', 'SELECT', NULL, 'viewer operator daemon'),
    ('table', 'crons cron_away cron_jobs uniques progress pruned pruning settings schema_version', 'SELECT', NULL, 'viewer operator'),
    ('function', 'standing wait _readable', 'EXECUTE', NULL, 'viewer operator'),
    ('function', '_utc _ago _in_zone time_of', 'EXECUTE', NULL, 'viewer operator'),

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
    ('table', 'finished_completed', 'INSERT', NULL, 'daemon'),
    ('table', 'nodes leader', 'INSERT UPDATE DELETE', NULL, 'daemon'),
    ('table', 'idle', 'INSERT DELETE', NULL, 'daemon'),
    ('sequence', 'jobs_position_seq', 'SELECT', NULL, 'daemon'),
    ('function', 'note_progress _expire', 'EXECUTE', NULL, 'daemon'),
    ('function', 'create_partitions drop_partitions prune_history prune_uniques queues_retention', 'EXECUTE', NULL, 'daemon'),
    ('function', 'cron_boot cron_declare cron_fire cron_sweep queue_declare', 'EXECUTE', NULL, 'daemon'),
    ('function', '_settle _settle_apart _claim_apart _stage _release _rescue _strays _sweep _lock_holders _hooks_declare _declared_sweep', 'EXECUTE', NULL,
     'daemon'),

    -- Within.
    ('sequence', 'nodes_id_seq', '', NULL, ''),
    ('function', 'wake cancel_again sweep_progress expire_jobs', '', NULL, ''),
    ('function', 'jobs_before_insert jobs_after_insert crons_before_write crons_after_write', '', NULL, ''),
    ('function', 'job_fault job_fault_text json_is_no_int json_job_fault json_jobs json_unknown_key_text raise_json_job_fault '
     'check_jobs state_of has_expired expire_these', '', NULL, ''),
    ('function', 'add_job enqueue_unique enqueue_many_unique conflict_answer conflict_fault conflicting_state replace_fields '
     'is_no_list_of only_keys sorted_texts', '', NULL, ''),
    ('function', 'cancel_anew cancel_live check_queue_node bulk_ask bulk_delete bulk_end bulk_ended bulk_ended_at_once bulk_find '
     'bulk_forget bulk_patience bulk_pause bulk_waiting filter_sql iso numbers_of shown texts_of', '', NULL, ''),
    ('function', 'history_parts newest_end prune_rules', '', NULL, ''),
    ('function', 'cron_after cron_enqueue cron_field cron_find cron_fire_one cron_minute cron_newest cron_parse cron_zone_fault',
     '', NULL, '')
