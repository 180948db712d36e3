-- A question to the whole history locks each partition with its index; pg_dump, each of all tables.
WITH room AS (
    SELECT current_setting('max_locks_per_transaction')::bigint
           * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint) AS locks
), needed AS (
    SELECT count(*) AS locks
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = '@channel@' AND c.relkind IN ('r', 'p', 'i', 'I')
)
SELECT CASE WHEN n.locks > r.locks / 2 THEN 'warn' ELSE 'ok' END,
       format('a query over all history partitions takes up to %s of the server''s %s locks', n.locks, r.locks),
       CASE WHEN n.locks > r.locks / 2
            THEN 'raise max_locks_per_transaction, or keep less history (keep_completed, keep_failed)' END
  FROM needed n, room r
