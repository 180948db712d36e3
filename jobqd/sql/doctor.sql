-- Doctor's frame, and its small checks.

-- name: doctor_begin
-- Runs before each check, in a transaction that changes nothing: no check waits for long.
SET LOCAL statement_timeout = '10s';
SET LOCAL lock_timeout = '2s'

-- name: doctor_end
-- Runs after each check, also after one that failed.
ROLLBACK

-- name: doctor_server
-- Who we are, and where. The pid reveals a pooler, the time a clock that is wrong.
SELECT pg_backend_pid(), extract(epoch FROM clock_timestamp()) * 1000, current_user, current_database(),
       current_setting('server_version')

-- name: doctor_listen
-- Whether a notification of one session reaches another: the listening session.
LISTEN "@channel@_doctor"

-- name: doctor_notify
-- The notifying session.
NOTIFY "@channel@_doctor"

-- name: doctor_unlisten
-- Afterwards, the listening session.
UNLISTEN "@channel@_doctor"

-- name: doctor_bound
-- Whether jobq's objects call only functions and operators of PostgreSQL and of jobq.
WITH
@bound@
SELECT 'fail', b.what, b.remedy FROM bound b ORDER BY b.what

-- name: doctor_encoding
-- Whether the database can hold any text: jobq's args and results are UTF-8.
SELECT CASE current_setting('server_encoding') WHEN 'UTF8' THEN 'ok' ELSE 'fail' END,
       CASE current_setting('server_encoding') WHEN 'UTF8' THEN 'the database''s encoding is UTF8'
            ELSE format('the database''s encoding is %s, but jobq needs UTF8: a job with characters that it lacks fails, or '
                        'its end cannot be recorded',
                        current_setting('server_encoding')) END,
       CASE current_setting('server_encoding') WHEN 'UTF8' THEN NULL
            ELSE format('CREATE DATABASE %I TEMPLATE template0 ENCODING ''UTF8'' LC_COLLATE ''C'' LC_CTYPE ''C''',
                        current_database() || '_utf8') END

-- name: doctor_crons
-- Crons of live nodes' configurations that the database refuses: their jobs are not enqueued, or by an older section.
-- A node writes this value itself, so it may have any form.
SELECT 'fail', format('node %s has crons in its configuration that the database refuses: %s', n.name, n.reload ->> 'crons'),
       'fix the [cron NAME] section in that node''s configuration, then: jobqd reload --wait'
  FROM @schema@.nodes n
 WHERE n.expires_at > clock_timestamp() AND n.reload ->> 'crons' IS NOT NULL
 ORDER BY n.name

-- name: doctor_hot
-- How many updates of the live table touched no index.
SELECT CASE WHEN t.n_tup_upd >= 1000 AND t.n_tup_hot_upd < t.n_tup_upd / 2 THEN 'warn' ELSE 'ok' END,
       format('%s of %s updates of jobs were HOT', t.n_tup_hot_upd, t.n_tup_upd),
       CASE WHEN t.n_tup_upd >= 1000 AND t.n_tup_hot_upd < t.n_tup_upd / 2
            THEN 'this is normal if most jobs are scheduled or retried; otherwise suspect an index of your own or a '
                 'fillfactor that leaves no room: see the other checks' END
  FROM pg_stat_all_tables t WHERE t.relid = '@schema@.jobs'::regclass

-- name: doctor_notifications
-- How full the server's notification queue is: a listening session that does not end its transaction keeps it from shrinking.
WITH u AS (SELECT pg_notification_queue_usage() AS usage)
SELECT CASE WHEN usage >= 0.9 THEN 'fail' WHEN usage >= 0.1 THEN 'warn' ELSE 'ok' END,
       format('the queue of notifications is %s %% full', round((usage * 100)::numeric, 1)),
       CASE WHEN usage >= 0.1 THEN 'when it is full every NOTIFY fails, and the insert with it: end the session that listens '
                                   'in a transaction (the server''s log names its pid)' END
  FROM u

-- name: doctor_prepared
-- Prepared transactions that are not ended: they hold vacuum back, and keep their locks.
--   $1 report those that are older than this, in ms
SELECT 'warn',
       format('prepared transaction %L of role %s has held vacuum back for %s, %s transactions', p.gid, p.owner,
              date_trunc('second', clock_timestamp() - p.prepared), age(p.transaction)),
       format('COMMIT PREPARED %1$L or ROLLBACK PREPARED %1$L, as %2$s', p.gid, p.owner)
  FROM pg_prepared_xacts p
 WHERE p.database = current_database() AND clock_timestamp() - p.prepared >= $1::bigint * interval '1 millisecond'
 ORDER BY p.prepared
