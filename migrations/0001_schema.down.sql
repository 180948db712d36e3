-- Undoes migration 1: every job is deleted, live or ended. The schema itself stays: its version stands in it. Whatever an
-- application has made that depends on jobq's objects makes this fail, and must be dropped first.

-- Those that take or return a row of a table go before it, the others after the triggers and defaults that call them.
DROP FUNCTION @schema@._cron_live, @schema@._add_job, @schema@._conflict_answer, @schema@._cron_enqueue, @schema@._cron_find,
    @schema@._cron_fire_one, @schema@._replace_fields;
DROP VIEW @schema@.all_jobs;
DROP TABLE @schema@.finished_jobs, @schema@.jobs, @schema@._progress, @schema@._uniques, @schema@._cancels, @schema@.refusals, @schema@.nodes,
    @schema@._leader, @schema@._idle, @schema@.crons, @schema@._cron_jobs, @schema@._cron_away, @schema@._pruned, @schema@._pruning,
    @schema@.queues, @schema@.queue_nodes, @schema@._hooks, @schema@.settings;
DROP SEQUENCE IF EXISTS @schema@.jobs_id_seq, @schema@.jobs_position_seq;
DROP PROCEDURE @schema@.wait;
DROP FUNCTION @schema@._add_error, @schema@._adopt_these, @schema@._ago, @schema@._all_changed, @schema@._apart,
    @schema@._claim_apart, @schema@._claim_these, @schema@._content_fault, @schema@._crashes, @schema@._cron_let_go,
    @schema@._cron_promote, @schema@._cut, @schema@._declared_sweep, @schema@._default_attempts,
    @schema@._delete_apart, @schema@._ended_ids, @schema@._error_entry, @schema@._errors, @schema@._expire,
    @schema@._expire_these, @schema@._holder_of, @schema@._hooks_declare, @schema@._in_zone, @schema@._is_hooks,
    @schema@._is_passing, @schema@._json_size, @schema@._lock_holders, @schema@._long_number, @schema@._names_zone,
    @schema@._notify, @schema@._on_discard, @schema@._orphaned, @schema@._park, @schema@._queue_attempts,
    @schema@._queue_said, @schema@._readable, @schema@._refuse, @schema@._release, @schema@._release_these,
    @schema@._rescue, @schema@._rescue_these, @schema@._retryable, @schema@._session_text, @schema@._settle,
    @schema@._settle_again, @schema@._settle_apart, @schema@._settle_one, @schema@._shown, @schema@._stage,
    @schema@._stage_these, @schema@._story, @schema@._strays, @schema@._sweep, @schema@._testing_claim,
    @schema@._testing_look, @schema@._testing_settle, @schema@._utc, @schema@._zone_fault, @schema@._bulk_ask,
    @schema@._bulk_delete, @schema@._bulk_end, @schema@._bulk_ended, @schema@._bulk_ended_at_once, @schema@._bulk_find,
    @schema@._bulk_forget, @schema@._bulk_patience, @schema@._bulk_pause, @schema@._bulk_waiting, @schema@.cancel,
    @schema@._cancel_again, @schema@._cancel_anew, @schema@._cancel_live, @schema@.cancel_many, @schema@._check_jobs,
    @schema@._check_queue_node, @schema@.complete, @schema@._conflict_fault, @schema@._conflicting_state,
    @schema@._create_partitions, @schema@._cron_after, @schema@._cron_boot, @schema@._cron_declare, @schema@.cron_delete,
    @schema@._cron_field, @schema@._cron_fire, @schema@._cron_minute, @schema@._cron_newest, @schema@.cron_next,
    @schema@._cron_parse, @schema@.cron_pause, @schema@.cron_resume, @schema@.cron_run, @schema@.cron_set,
    @schema@._cron_sweep, @schema@._cron_zone_fault, @schema@._crons_after_write, @schema@._crons_before_write,
    @schema@.delete, @schema@.delete_many, @schema@._drop_partitions, @schema@.enqueue, @schema@.enqueue_many,
    @schema@._enqueue_many_unique, @schema@._enqueue_unique, @schema@._expire_jobs, @schema@._expire_ids,
    @schema@._filter_sql, @schema@._has_expired, @schema@._history_parts, @schema@._is_no_list_of, @schema@._iso,
    @schema@._job_fault, @schema@._job_fault_text, @schema@._jobs_after_insert, @schema@._jobs_before_insert,
    @schema@._json_is_no_int, @schema@._json_job_fault, @schema@._json_jobs, @schema@._json_unknown_key_text,
    @schema@._newest_end, @schema@._next_position, @schema@._note_progress, @schema@._numbers_of, @schema@._only_keys,
    @schema@.pause, @schema@._prune_history, @schema@._prune_rules, @schema@._prune_uniques, @schema@.purge,
    @schema@._queue_declare, @schema@._queues_retention, @schema@._raise_json_job_fault, @schema@.resume, @schema@.retry,
    @schema@.retry_many, @schema@.scale, @schema@._shown_quoted, @schema@._sorted_texts, @schema@._standing, @schema@._state_of,
    @schema@._sweep_progress, @schema@._texts_of, @schema@._time_of, @schema@.try_enqueue, @schema@.try_enqueue_many,
    @schema@._unique_hash, @schema@._wake;
DROP TYPE @schema@._cron_fields, @schema@.job_state;
