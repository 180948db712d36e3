-- How long a statement of this transaction waits for a lock.
--   $1 ms
SELECT set_config('lock_timeout', $1, true)
