-- The columns that a job keeps when it moves from jobs to finished_jobs. errors is not one of them: most ends add an entry.
id, inserted_at, scheduled_at, attempted_at, attempted_by, attempt, max_attempts, timeout_ms, priority, queue, kind, args,
       meta, tags, key, unique_key, expires_at
