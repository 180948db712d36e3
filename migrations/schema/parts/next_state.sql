-- The state of job `j` after its attempt `a` (outcome, delay_ms). asked.yes: jobq.cancel() was called for the attempt.
-- poison.yes: the job has crashed too many workers.
CASE WHEN a.outcome = 'completed' THEN a.outcome
                    WHEN asked.yes OR a.outcome = 'cancelled' THEN 'cancelled'
                    WHEN a.outcome = 'discarded' THEN a.outcome
                    WHEN a.outcome IN ('failed', 'crashed') AND (j.attempt >= j.max_attempts OR poison.yes)
                    THEN 'discarded'
                    WHEN a.outcome = 'released' OR a.delay_ms <= 0 THEN 'available'
                    WHEN a.outcome = 'snoozed' THEN 'scheduled'
                    ELSE 'retryable' END::@schema@.job_state
