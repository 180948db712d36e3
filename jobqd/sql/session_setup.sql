-- The first words of every session of ours, and all of them with the schema of their function, because until the first one
-- holds, names are looked up where the database says: whoever may create a function or an operator there would have it
-- run as us. pg_temp stands last, or it would be looked at first. The rest is what a database's own settings would spoil: our
-- statements end by themselves, and what they read and print does not depend on who asks.
-- Not behind a pooler, where the session is not ours: see transaction_setup in session.sql.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', false),
       pg_catalog.set_config('statement_timeout', '0', false),
       CASE WHEN pg_catalog.current_setting('idle_session_timeout', true) IS NOT NULL
            THEN pg_catalog.set_config('idle_session_timeout', '0', false) END,
       CASE WHEN pg_catalog.current_setting('transaction_timeout', true) IS NOT NULL
            THEN pg_catalog.set_config('transaction_timeout', '0', false) END,
       pg_catalog.set_config('default_transaction_isolation', 'read committed', false),
       pg_catalog.set_config('standard_conforming_strings', 'on', false),
       pg_catalog.set_config('client_min_messages', 'notice', false),
       pg_catalog.set_config('exit_on_error', 'off', false),
       pg_catalog.set_config('DateStyle', 'ISO, MDY', false),
       pg_catalog.set_config('TimeZone', 'UTC', false),
       pg_catalog.set_config('IntervalStyle', 'postgres', false),
       pg_catalog.set_config('extra_float_digits', '1', false)
