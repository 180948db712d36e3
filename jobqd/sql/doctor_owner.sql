-- Whose the schema is. Only who would migrate it must own it: others learn that it is another's where there is nothing in it
-- yet, or where they have no role of jobq's and are no owner of the database.
WITH RECURSIVE
@strangers@,
told AS (
    SELECT CASE WHEN s.nth = 2 AND o.maker IS NOT NULL THEN 'warn' ELSE 'fail' END AS level, s.*
      FROM strangers s, owned o, me
     WHERE s.nth <> 2 OR o.maker IS NULL
        OR o.owner <> o.datdba
           AND NOT EXISTS (SELECT FROM mine JOIN pg_roles r ON r.oid = mine.oid WHERE r.rolname ~ '^jobq_(worker|viewer|operator|daemon|enqueuer)$')
)
SELECT t.level, t.found, t.remedy FROM (SELECT * FROM told ORDER BY nth, found) t
UNION ALL
SELECT 'ok', format('schema %s and everything in it belongs to role %s, and no other role may create objects in it', o.nspname,
                    pg_get_userbyid(o.owner)), NULL
  FROM owned o WHERE NOT EXISTS (SELECT FROM told)
UNION ALL
SELECT 'ok', 'no other role has created a schema @channel@', NULL WHERE NOT EXISTS (SELECT FROM owned)
