-- The first words of every transaction of ours behind a pooler, and of every one that BEGIN opens: as session_setup.sql, as
-- far as it must hold, until the transaction ends. More settings follow it as further columns (db/pgconn.h): so it is one
-- statement, and nothing stands behind its last one.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true),
       pg_catalog.set_config('statement_timeout', '0', true),
       CASE WHEN pg_catalog.current_setting('transaction_timeout', true) IS NOT NULL
            THEN pg_catalog.set_config('transaction_timeout', '0', true) END
