-- What the connecting role lacks to run jobqd, of what parts/grants.sql gives jobq_daemon. Who has another role of jobq's is no
-- jobqd: that role is what it wants.
WITH
@rights@,
lacks AS (
    SELECT DISTINCT p.privilege, regexp_replace(o.text, '^[A-Z]+ ', '') AS name
      FROM grants g
     CROSS JOIN LATERAL unnest(string_to_array(g.names || ' ', ' ')) n (name)
     CROSS JOIN LATERAL unnest(string_to_array(g.rights, ' ')) p (privilege)
      JOIN known o ON o.sort = g.sort AND o.name = n.name
     WHERE 'daemon' = ANY (string_to_array(g.roles, ' '))
       AND NOT CASE g.sort WHEN 'schema' THEN has_schema_privilege(o.oid, p.privilege)
                           WHEN 'table' THEN has_table_privilege(o.oid, p.privilege)
                           WHEN 'sequence' THEN has_sequence_privilege(o.oid, p.privilege)
                           ELSE has_function_privilege(o.oid, p.privilege) END
), other AS (
    SELECT EXISTS (SELECT FROM pg_roles r WHERE r.rolname ~ '^jobq_(enqueuer|worker|viewer|operator)$' AND pg_has_role(r.oid, 'USAGE'))
           AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = 'jobq_daemon' AND pg_has_role(r.oid, 'USAGE')) AS wants_no_more
), what AS (
    SELECT string_agg(l.rights, ', ' ORDER BY l.rights) AS text
      FROM (SELECT string_agg(privilege, ' and ' ORDER BY privilege) || ' on ' || name AS rights FROM lacks GROUP BY name) l
)
SELECT CASE WHEN w.text IS NULL OR o.wants_no_more THEN 'ok' ELSE 'fail' END,
       CASE WHEN w.text IS NULL THEN format('%s has all rights that jobqd needs', current_user)
            WHEN o.wants_no_more THEN format('%s has another of jobq''s roles; jobqd itself needs jobq_daemon', current_user)
            ELSE format('%s lacks %s: jobqd cannot run as this role', current_user, w.text) END,
       CASE WHEN w.text IS NULL OR o.wants_no_more THEN NULL
            WHEN EXISTS (SELECT FROM pg_roles r WHERE r.rolname = 'jobq_daemon' AND pg_has_role(r.oid, 'USAGE'))
            THEN 'jobqd migrate grant'
            ELSE format('GRANT jobq_daemon TO %I', current_user) END
  FROM what w, other o
