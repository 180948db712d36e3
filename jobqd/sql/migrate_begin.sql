-- What holds while the schema is changed. What is made now keeps the functions and operators that its text finds now, for as
-- long as it is there (defaults, checks, views, a trigger's WHEN): so names are looked up in pg_catalog only, where nobody
-- else can put any. The rest is what a database's own settings would refuse, or end halfway.
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL statement_timeout = 0;
SET LOCAL standard_conforming_strings = on;
SET LOCAL plpgsql.extra_errors = 'none';
SET LOCAL plpgsql.extra_warnings = 'none';
-- A step may create a function before what the function names. A test checks the bodies of all of them.
SET LOCAL check_function_bodies = off;
DO $$
BEGIN
    IF pg_catalog.current_setting('transaction_timeout', true) IS NOT NULL THEN
        PERFORM pg_catalog.set_config('transaction_timeout', '0', true);
    END IF;
END
$$
