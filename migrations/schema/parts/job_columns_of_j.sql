-- job_columns of table `j`, for a RETURNING that has more columns: an application may have added a column of any name to jobs,
-- so j.* could make one of those ambiguous.
j.id, j.inserted_at, j.scheduled_at, j.attempted_at, j.attempted_by, j.attempt, j.max_attempts, j.timeout_ms,
                  j.priority, j.queue, j.kind, j.args, j.meta, j.tags, j.key, j.unique_key, j.expires_at
