-- For migrate print: makes the schema, or ends where one is there that is not ours, or the database's encoding does not do. CREATE SCHEMA IF NOT EXISTS would ask for
-- CREATE on the database even where it is there.
DO $$
DECLARE
    stranger record;
BEGIN
    IF current_setting('server_encoding') <> 'UTF8' THEN
        RAISE EXCEPTION 'jobq: the database''s encoding is %, but jobq needs UTF8', current_setting('server_encoding')
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = '@channel@') THEN
        CREATE SCHEMA @schema@;
    END IF;
    FOR stranger IN
        WITH RECURSIVE
@strangers@
        SELECT s.found, s.remedy FROM strangers s ORDER BY s.nth, s.found
    LOOP
        RAISE EXCEPTION 'jobq: %', stranger.found USING HINT = stranger.remedy, ERRCODE = 'insufficient_privilege';
    END LOOP;
END
$$
