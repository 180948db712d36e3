-- Whether the database takes writes, and its triggers fire.
SELECT CASE WHEN pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean
            THEN 'fail' ELSE 'ok' END,
       CASE WHEN pg_is_in_recovery() THEN 'the server is a replica or still in recovery: it accepts no writes'
            WHEN current_setting('default_transaction_read_only')::boolean
            THEN 'transactions are read only: default_transaction_read_only is on'
            ELSE 'the database accepts writes' END,
       CASE WHEN pg_is_in_recovery()
            THEN 'connect to the primary; with several hosts in the connection string, target_session_attrs=read-write '
                 'finds it'
            WHEN current_setting('default_transaction_read_only')::boolean
            THEN format('ALTER DATABASE %I RESET default_transaction_read_only, or the same for role %I or the server',
                        current_database(), current_user) END
UNION ALL
SELECT 'fail', 'triggers do not fire: session_replication_role is ' || current_setting('session_replication_role')
               || ', so scheduled jobs run at once, and inserts are not checked and wake no node',
       format('ALTER DATABASE %I RESET session_replication_role, or the same for role %I or the server', current_database(),
              current_user)
 WHERE current_setting('session_replication_role') = 'replica'
