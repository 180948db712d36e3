-- What other roles than jobq's own hold on jobq's things that parts/grants.sql gives to none, and triggers of theirs. A role of
-- yours may have what a role of jobq's has, by a grant of its own. But a function of jobq's runs as the owner of the schema,
-- and so does each trigger that it fires.
WITH RECURSIVE
@strangers@,
@rights@,
given (oid, attnum, privilege) AS (
    SELECT o.oid, coalesce(a.attnum, 0)::int, p.privilege
      FROM grants g
     CROSS JOIN LATERAL unnest(string_to_array(CASE WHEN g.sort = 'schema' THEN ' ' ELSE g.names END, ' ')) n (name)
     CROSS JOIN LATERAL unnest(string_to_array(g.rights, ' ')) p (privilege)
      JOIN known o ON o.sort = g.sort AND o.name = n.name
      LEFT JOIN pg_attribute a ON a.attrelid = o.oid AND o.sort = 'table' AND NOT a.attisdropped
                                  AND a.attname = ANY (string_to_array(g.columns, ' '))
     WHERE g.roles <> '' AND (g.columns IS NULL OR a.attnum IS NOT NULL)
), held (oid, sort, text, grantee, privilege, attnum, columns) AS (
    SELECT o.oid, o.sort, o.text, e.grantee, e.privilege_type, 0, ''
      FROM known o, aclexplode(o.acl) e
    UNION ALL
    SELECT o.oid, o.sort, o.text, e.grantee, e.privilege_type, a.attnum, format(' (%I)', a.attname)
      FROM known o JOIN pg_attribute a ON a.attrelid = o.oid AND o.sort = 'table' AND NOT a.attisdropped,
           aclexplode(a.attacl) e
), odd AS (
    SELECT r.rolname, h.sort, h.privilege, h.columns, count(*) AS n, 
           (array_agg(regexp_replace(h.text, '^[A-Z]+ ', '') ORDER BY h.text ~ '[.]_', h.text))[1] AS some, -- a public one, if it can be
           split_part(min(h.text), ' ', 1) || ' ' || string_agg(regexp_replace(h.text, '^[A-Z]+ ', ''), ', ' ORDER BY h.text) AS targets
      FROM held h JOIN pg_roles r ON r.oid = h.grantee
     WHERE NOT EXISTS (SELECT FROM roles j WHERE j.oid = h.grantee) AND h.grantee NOT IN (SELECT oid FROM allies)
       AND NOT EXISTS (SELECT FROM given g WHERE g.oid = h.oid AND g.privilege = h.privilege AND g.attnum IN (0, h.attnum))
       AND NOT (h.sort = 'schema' AND h.privilege = 'CREATE') -- the check of the owner names it
     GROUP BY r.rolname, h.sort, h.privilege, h.columns
), found (nth, level, what, remedy) AS (
    SELECT 1, 'fail', format('role %s may create triggers on %s%s: these run as role %s, so it has all rights of that role', odd.rolname,
                             odd.some, CASE WHEN odd.n > 1 THEN format(' and %s more', odd.n - 1) ELSE '' END, pg_get_userbyid(o.owner)),
           format('REVOKE TRIGGER ON %s FROM %I CASCADE', odd.targets, odd.rolname)
      FROM odd, owned o WHERE odd.privilege = 'TRIGGER'
    UNION ALL
    SELECT 2, 'fail', format('trigger %s on %s calls function %s of role %s, as role %s', t.tgname, t.tgrelid::regclass,
                             p.oid::regprocedure, pg_get_userbyid(p.proowner), pg_get_userbyid(o.owner)),
           format('DROP TRIGGER %I ON %s', t.tgname, t.tgrelid::regclass)
      FROM owned o, pg_trigger t JOIN known k ON k.oid = t.tgrelid AND k.sort = 'table' JOIN pg_proc p ON p.oid = t.tgfoid
     WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND NOT p.prosecdef AND p.proowner NOT IN (SELECT oid FROM allies)
    UNION ALL
    SELECT 3, 'warn', format('role %s has rights that jobq grants to no role: %s', odd.rolname,
                             string_agg(odd.privilege || odd.columns || ' on ' || odd.some
                                        || CASE WHEN odd.n > 1 THEN format(' and %s more', odd.n - 1) ELSE '' END, ', '
                                        ORDER BY odd.sort, odd.privilege, odd.columns)),
           string_agg(format('REVOKE %s%s ON %s FROM %I CASCADE', odd.privilege, odd.columns, odd.targets, odd.rolname), '; '
                      ORDER BY odd.sort, odd.privilege, odd.columns)
      FROM odd WHERE odd.privilege <> 'TRIGGER' GROUP BY odd.rolname
)
SELECT f.level, f.what, f.remedy FROM found f ORDER BY f.nth, f.what
