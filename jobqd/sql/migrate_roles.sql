-- The roles that grants.sql names. They belong to the whole server, so they may be there already, and stay when the schema
-- goes. Where this role may make none, jobq works without them: the owner of the schema may do all.
DO $$
DECLARE
    missing text;
    refused text[] := '{}';
BEGIN
    FOR missing IN
        WITH grants (sort, names, rights, columns, roles) AS (
@grants@
        )
        SELECT DISTINCT 'jobq_' || g.role FROM grants, unnest(string_to_array(roles, ' ')) g (role)
         WHERE NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = 'jobq_' || g.role)
         ORDER BY 1
    LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', missing);
        EXCEPTION
            WHEN insufficient_privilege THEN
                refused := refused || missing;
            WHEN duplicate_object OR unique_violation THEN
                NULL; -- another migration was quicker
        END;
    END LOOP;
    IF refused <> '{}' THEN
        RAISE NOTICE 'jobq: % may not create the missing roles; continuing without them: %', current_user, array_to_string(refused, ', ');
    END IF;
END
$$
