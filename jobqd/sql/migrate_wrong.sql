-- Of each of jobq's roles and PUBLIC, where something is not as grants.sql says: how many rights it lacks, how many it has too
-- many, and one of them in words. Then the roles that are missing, as NULL, NULL, NULL.
WITH
@rights@
SELECT w.role, count(*) FILTER (WHERE w.lacks), count(*) FILTER (WHERE NOT w.lacks),
       min(w.privilege || ' on ' || w.text)
  FROM wrong w GROUP BY w.role
UNION ALL
SELECT DISTINCT 'jobq_' || g.role, NULL::bigint, NULL::bigint, NULL
  FROM grants, unnest(string_to_array(roles, ' ')) g (role)
 WHERE NOT EXISTS (SELECT FROM roles r WHERE r.name = 'jobq_' || g.role)
 ORDER BY 1
