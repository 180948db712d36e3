-- For migrate print, as rights_become_owner does for up: what a member of the schema's owner makes is the owner's.
DO $$
DECLARE
    holder text;
BEGIN
    FOR holder IN
        WITH RECURSIVE
@strangers@
        SELECT pg_get_userbyid(o.owner) FROM owned o WHERE o.owner NOT IN (SELECT me.oid FROM me)
    LOOP
        PERFORM set_config('role', holder, true);
    END LOOP;
END
$$
