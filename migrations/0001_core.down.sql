-- Undoes migration 1: every job is gone, waiting or ended. The schema itself stays: its version stands in it.

DROP VIEW @schema@.all_jobs;
DROP TABLE @schema@.finished_jobs, @schema@.jobs, @schema@.nodes, @schema@.queues, @schema@.crons, @schema@.leader,
    @schema@.idle;
DROP FUNCTION @schema@.jobs_after_insert();
DROP FUNCTION @schema@.jobs_before_insert();
DROP FUNCTION @schema@.job_fault(text, jsonb, text, int, timestamptz, int, text, text, text[], jsonb, int);
DROP FUNCTION @schema@.job_fault_text(text, jsonb);
DROP FUNCTION @schema@.wake(text[]);
DROP FUNCTION @schema@.next_position();
DROP SEQUENCE IF EXISTS @schema@.jobs_position_seq, @schema@.jobs_id_seq;
DROP TYPE @schema@.job_state;
