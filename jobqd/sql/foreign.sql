-- Why nothing of this schema is read or called: another role may have put there what it likes, and a view or a function runs as
-- whoever asks. One row: what is wrong, and what to do, then each by itself; none where all is well or the schema is not there. Only the
-- catalogs are read.
--
-- Who owns it must be trusted: the role that asks, or one that it was made a member of, the database's owner, a superuser.
-- Others than superusers also trust who has let them in: by a role of jobq's that they are a member of, or, where they are
-- not the database's owner, by a grant on the schema. That is as much as a role that owns nothing can tell.
WITH RECURSIVE
@strangers@,
invited AS (
    SELECT EXISTS (SELECT FROM mine JOIN pg_roles r ON r.oid = mine.oid
                    WHERE r.rolname ~ '^jobq_(enqueuer|worker|viewer|operator|daemon)$') AS by_role,
           EXISTS (SELECT FROM owned o, aclexplode(o.nspacl) e JOIN mine ON mine.oid = e.grantee
                    WHERE e.privilege_type = 'USAGE' AND o.datdba NOT IN (SELECT oid FROM mine)) AS by_grant
), friends (oid) AS (
    SELECT oid FROM allies UNION SELECT oid FROM me
), foreigners (nth, found, remedy) AS (
    SELECT s.nth, s.found, s.remedy FROM strangers s, owned o WHERE s.nth = 1 AND o.holder NOT IN (SELECT oid FROM allies)
    UNION ALL
    SELECT s.nth, s.found, s.remedy FROM strangers s, owned o, me, invited i
     WHERE s.nth = 2 AND o.owner <> o.datdba AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = o.owner AND r.rolsuper)
       AND (me.rolsuper OR NOT (i.by_role OR i.by_grant))
    UNION ALL
    SELECT s.nth, s.found, s.remedy FROM strangers s WHERE s.nth >= 3 AND s.who NOT IN (SELECT oid FROM friends)
)
SELECT f.found || ': ' || f.remedy AS reason, f.found, f.remedy FROM foreigners f ORDER BY f.nth, f.found LIMIT 1
