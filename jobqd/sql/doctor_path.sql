-- Schemas on the search_path of roles that use jobq in which another role may create something: what it gives the name of a
-- function or an operator of PostgreSQL is called by their statements, as them. jobqd and jobq's functions do not go by that path, an
-- application's own statements do. The path is the one that is set for the role, the database or the server.
WITH RECURSIVE users (oid) AS (
    SELECT r.oid FROM pg_roles r WHERE r.rolname ~ '^jobq_(enqueuer|worker|viewer|operator|daemon)$'
    UNION
    SELECT m.member FROM users u JOIN pg_auth_members m ON m.roleid = u.oid
), trusted (oid) AS (
    SELECT d.datdba FROM pg_database d WHERE d.datname = current_database()
    UNION
    SELECT n.nspowner FROM pg_namespace n WHERE n.nspname = '@channel@'
    UNION
    SELECT r.oid FROM pg_roles r WHERE r.rolsuper OR r.rolname = 'pg_database_owner'
), told AS (
    SELECT r.oid, r.rolname,
           (SELECT substring(c.setting FROM '^search_path=(.*)$')
              FROM pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) c (setting)
             WHERE s.setdatabase IN (0, d.oid) AND s.setrole IN (0, r.oid) AND c.setting LIKE 'search_path=%'
             ORDER BY s.setrole <> 0 DESC, s.setdatabase <> 0 DESC
             LIMIT 1) AS path
      FROM pg_roles r, pg_database d
     WHERE d.datname = current_database()
), paths AS (
    -- The server's path is what RESET would give this session, unless its own role has a setting.
    SELECT t.oid, t.rolname,
           coalesce(t.path, CASE WHEN session.path IS NULL THEN p.reset_val ELSE p.boot_val END) AS path
      FROM told t, told session, pg_roles r, pg_settings p
     WHERE session.rolname = session_user AND r.oid = t.oid AND p.name = 'search_path'
       AND (t.rolname = current_user OR r.rolcanlogin AND t.oid IN (SELECT oid FROM users)
            OR t.oid IN (SELECT n.nspowner FROM pg_namespace n WHERE n.nspname = '@channel@'))
), parts AS (
    SELECT p.oid AS role, p.rolname, m.nth, n.name, CASE n.name WHEN '$user' THEN p.rolname ELSE n.name END AS nspname
      FROM paths p
     CROSS JOIN LATERAL regexp_matches(p.path, '"((?:[^"]|"")*)"|([^",[:space:]]+)', 'g') WITH ORDINALITY m (part, nth)
     CROSS JOIN LATERAL (SELECT coalesce(replace(m.part[1], '""', '"'), lower(m.part[2]))) n (name)
), memberships (member, roleid) AS (
    SELECT m.member, m.roleid FROM pg_auth_members m
    UNION
    SELECT s.member, m.roleid FROM memberships s JOIN pg_auth_members m ON m.member = s.roleid
), places AS (
    SELECT p.role, p.rolname, n.oid, n.nspname, n.nspowner, n.nspacl
      FROM parts p JOIN pg_namespace n ON n.nspname = p.nspname
     WHERE n.nspname NOT IN ('@channel@', 'pg_catalog')
), writers AS (
    SELECT DISTINCT p.nspname, p.role, p.rolname, w.rolname AS writer, false AS is_owner
      FROM places p
     CROSS JOIN LATERAL aclexplode(coalesce(p.nspacl, acldefault('n', p.nspowner))) e
      LEFT JOIN pg_roles w ON w.oid = e.grantee
     WHERE e.privilege_type = 'CREATE' AND e.grantee NOT IN (p.role, p.nspowner)
       AND e.grantee NOT IN (SELECT oid FROM trusted)
    UNION
    -- From whoever owns it, the right cannot be taken for long. Who is a member trusts it.
    SELECT p.nspname, p.role, p.rolname, w.rolname, true
      FROM places p JOIN pg_roles w ON w.oid = p.nspowner
     WHERE w.oid <> p.role AND w.oid NOT IN (SELECT oid FROM trusted)
       AND NOT EXISTS (SELECT FROM memberships m WHERE m.member = p.role AND m.roleid = w.oid)
)
SELECT 'warn',
       format('%s may create functions and operators in schema %s, which is on the search_path of %s%s',
              coalesce('role ' || w.writer, 'every role'), w.nspname,
              array_to_string((array_agg(w.rolname ORDER BY w.rolname))[1:3], ', '),
              CASE WHEN count(*) > 3 THEN format(' and %s more', count(*) - 3) ELSE '' END),
       CASE WHEN w.is_owner
            THEN string_agg(format('ALTER ROLE %I IN DATABASE %I SET search_path = %s', w.rolname, current_database(),
                                   coalesce((SELECT string_agg(quote_ident(p.name), ', ' ORDER BY p.nth) FROM parts p
                                              WHERE p.role = w.role AND p.nspname <> w.nspname), 'pg_catalog')), '; ' ORDER BY w.rolname)
            ELSE format('REVOKE CREATE ON SCHEMA %I FROM %s', w.nspname, coalesce(quote_ident(w.writer), 'PUBLIC')) END
  FROM writers w
 GROUP BY w.nspname, w.writer, w.is_owner
 ORDER BY w.nspname, w.writer NULLS FIRST
