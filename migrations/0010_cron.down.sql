-- Undoes migration 10. Crons stay, as rows that nobody looks at.

DROP TRIGGER crons_after_update ON @schema@.crons;
DROP TRIGGER crons_after_insert ON @schema@.crons;
DROP TRIGGER crons_before_update ON @schema@.crons;
DROP TRIGGER crons_before_insert ON @schema@.crons;
DROP FUNCTION @schema@.cron_run, @schema@.cron_delete, @schema@.cron_resume, @schema@.cron_pause, @schema@.cron_find,
    @schema@.cron_set, @schema@.cron_sweep, @schema@.cron_declare, @schema@._cron_let_go, @schema@.cron_boot,
    @schema@.cron_fire, @schema@.cron_fire_one, @schema@.cron_enqueue, @schema@.crons_after_write,
    @schema@.crons_before_write, @schema@.cron_next, @schema@.cron_zone_fault, @schema@.cron_newest, @schema@.cron_after, @schema@.cron_minute, @schema@.cron_parse,
    @schema@.cron_field;
DROP TYPE @schema@.cron_fields;

ALTER TABLE @schema@.nodes DROP COLUMN booted, DROP COLUMN boots_left;

DROP TABLE @schema@.cron_away;
DROP INDEX @schema@.crons_due;
ALTER TABLE @schema@.crons
    DROP COLUMN priority,
    DROP COLUMN max_attempts,
    DROP COLUMN timeout_ms,
    DROP COLUMN meta,
    DROP COLUMN tags,
    DROP COLUMN missed,
    DROP COLUMN next_at,
    DROP COLUMN last_at,
    DROP COLUMN last_job_id,
    DROP COLUMN error,
    DROP COLUMN failed_at,
    DROP COLUMN declared,
    DROP COLUMN declared_by;
