-- Whether jobq's roles are there, and they and PUBLIC may what parts/grants.sql says, no less and no more.
WITH
@rights@,
me AS (
    SELECT r.rolsuper OR r.rolcreaterole AS creates FROM pg_roles r WHERE r.rolname = current_user
), missing AS (
    SELECT string_agg(m.name, ', ' ORDER BY m.name) AS names,
           string_agg(format('CREATE ROLE %I NOLOGIN', m.name), '; ' ORDER BY m.name) AS sql
      FROM (SELECT DISTINCT 'jobq_' || g.role AS name FROM grants, unnest(string_to_array(roles, ' ')) g (role)) m
     WHERE NOT EXISTS (SELECT FROM roles r WHERE r.name = m.name)
), said AS (
    SELECT w.role, w.lacks, count(*) AS n,
           -- Those that are for users first: they tell more.
           (array_agg(w.privilege || coalesce(' (' || a.attname || ')', '') || ' on ' || regexp_replace(w.text, '^[A-Z]+ ', '')
                      ORDER BY w.oid IN (SELECT oid FROM wanted) AND w.name !~ '^_' DESC, w.text, w.privilege, w.attnum))[1:3] AS some
      FROM wrong w LEFT JOIN pg_attribute a ON w.attnum > 0 AND a.attrelid = w.oid AND a.attnum = w.attnum
     GROUP BY w.role, w.lacks
), found (nth, level, what, remedy) AS (
    SELECT 1, 'warn', format('%s missing: only the owner of the schema can do what these roles are for', m.names),
           CASE WHEN me.creates THEN 'jobqd migrate grant' ELSE m.sql END
      FROM missing m, me WHERE m.names IS NOT NULL
    UNION ALL
    SELECT CASE WHEN s.lacks THEN 3 ELSE 2 END, CASE WHEN s.lacks THEN 'warn' ELSE 'fail' END,
           format(CASE WHEN s.lacks THEN '%s lacks %s%s' ELSE '%s has rights that it should not have: %s%s' END, s.role,
                  array_to_string(s.some, ', '), CASE WHEN s.n > 3 THEN format(' and %s more rights', s.n - 3) ELSE '' END),
           'jobqd migrate grant'
      FROM said s
    UNION ALL
    SELECT 4, 'warn', format('%s is a member of %s, and so has its rights', r.name, m.roleid::regrole),
           format('REVOKE %s FROM %s', m.roleid::regrole, r.name)
      FROM roles r JOIN pg_auth_members m ON m.member = r.oid
    UNION ALL
    SELECT 4, 'warn', format('%s is a superuser', r.name), format('ALTER ROLE %I NOSUPERUSER', r.name)
      FROM roles r JOIN pg_roles p ON p.oid = r.oid AND p.rolsuper
)
SELECT f.level, f.what, f.remedy FROM (SELECT * FROM found ORDER BY nth, what) f
UNION ALL
SELECT 'ok', (SELECT string_agg(r.name, ', ' ORDER BY r.name) FROM roles r WHERE r.oid <> 0)
             || ' and PUBLIC have exactly the rights they should', NULL
 WHERE NOT EXISTS (SELECT FROM found)
