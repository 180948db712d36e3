-- What jobq's roles and PUBLIC have that grants.sql does not give, and what they lack of it: `wrong`. Roles that are not
-- there lack nothing. The owner's own rights are no matter, even where he is one of these roles.
grants (sort, names, rights, columns, roles) AS (
@grants@
), roles AS (
    SELECT r.oid, r.rolname AS name FROM pg_roles r
     WHERE r.rolname IN (SELECT 'jobq_' || g.role FROM grants, unnest(string_to_array(roles, ' ')) g (role))
    UNION ALL
    SELECT 0::oid, 'PUBLIC'
), ours AS (
    SELECT n.oid FROM pg_namespace n WHERE n.nspname = '@channel@'
), objects (sort, oid, name, owner, acl, text) AS (
    SELECT 'schema', n.oid, '', n.nspowner, coalesce(n.nspacl, acldefault('n', n.nspowner)), format('SCHEMA %I', n.nspname)
      FROM pg_namespace n JOIN ours USING (oid)
    UNION ALL
    SELECT CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, c.oid, c.relname::text, c.relowner,
           coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner)),
           format(CASE c.relkind WHEN 'S' THEN 'SEQUENCE %s' ELSE 'TABLE %s' END, c.oid::regclass)
      FROM pg_class c JOIN ours ON ours.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL
    SELECT 'function', p.oid, p.proname::text, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner)),
           format('ROUTINE %s', p.oid::regprocedure)
      FROM pg_proc p JOIN ours ON ours.oid = p.pronamespace
), known AS (
    SELECT o.* FROM objects o
     WHERE (o.sort, o.name) IN (SELECT g.sort, n.name FROM grants g, unnest(string_to_array(g.names || ' ', ' ')) n (name))
        OR o.name ~ '^_'
), wanted (oid, attnum, grantee, privilege, grantable) AS (
    SELECT DISTINCT o.oid, coalesce(a.attnum, 0)::int, r.oid, p.privilege, false
      FROM grants g
     CROSS JOIN LATERAL unnest(string_to_array(CASE WHEN g.sort = 'schema' THEN ' ' ELSE g.names END, ' ')) n (name)
     CROSS JOIN LATERAL unnest(string_to_array(g.rights, ' ')) p (privilege)
     CROSS JOIN LATERAL unnest(string_to_array(g.roles, ' ')) w (role)
      JOIN roles r ON r.name = 'jobq_' || w.role
      JOIN known o ON o.sort = g.sort AND o.name = n.name AND o.owner <> r.oid
      LEFT JOIN pg_attribute a ON a.attrelid = o.oid AND o.sort = 'table' AND NOT a.attisdropped
                                  AND a.attname = ANY (string_to_array(g.columns, ' '))
     WHERE g.columns IS NULL OR a.attnum IS NOT NULL
), have (oid, attnum, grantee, privilege, grantable) AS (
    SELECT o.oid, 0, e.grantee, e.privilege_type, e.is_grantable
      FROM known o, aclexplode(o.acl) e JOIN roles r ON r.oid = e.grantee
     WHERE e.grantee <> o.owner
    UNION
    SELECT o.oid, a.attnum, e.grantee, e.privilege_type, e.is_grantable
      FROM known o JOIN pg_attribute a ON a.attrelid = o.oid AND o.sort = 'table' AND NOT a.attisdropped,
           aclexplode(a.attacl) e JOIN roles r ON r.oid = e.grantee
     WHERE e.grantee <> o.owner
), wrong AS (
    SELECT o.sort, o.name, o.text, o.oid, r.oid AS grantee, r.name AS role, d.privilege, d.attnum, d.lacks
      FROM (SELECT oid, attnum, grantee, privilege, h.oid IS NULL AS lacks
              FROM wanted w FULL JOIN have h USING (oid, attnum, grantee, privilege, grantable)
             WHERE w.oid IS NULL OR h.oid IS NULL) d
      JOIN known o ON o.oid = d.oid
      JOIN roles r ON r.oid = d.grantee
)
