-- Room for connections: each jobqd needs four. Limits of the server, of the database, and of the role.
WITH limits (whose, used, most, remedy) AS (
    SELECT 'the server', count(*),
           current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
           - coalesce(current_setting('reserved_connections', true)::int, 0),
           'raise max_connections, or put a pooler in front of the applications'
      FROM pg_stat_activity WHERE backend_type = 'client backend'
    UNION ALL
    SELECT format('database %s', d.datname), count(a.pid), d.datconnlimit,
           format('ALTER DATABASE %I CONNECTION LIMIT ...', d.datname)
      FROM pg_database d LEFT JOIN pg_stat_activity a ON a.datid = d.oid AND a.backend_type = 'client backend'
     WHERE d.datname = current_database() AND d.datconnlimit >= 0 GROUP BY d.oid, d.datname, d.datconnlimit
    UNION ALL
    SELECT format('role %s', r.rolname), count(a.pid), r.rolconnlimit,
           format('ALTER ROLE %I CONNECTION LIMIT ...', r.rolname)
      FROM pg_roles r LEFT JOIN pg_stat_activity a ON a.usesysid = r.oid
     WHERE r.rolname = current_user AND r.rolconnlimit >= 0 GROUP BY r.oid, r.rolname, r.rolconnlimit
)
SELECT CASE WHEN most - used < 8 THEN 'warn' ELSE 'ok' END,
       format('%s of %s connections of %s are in use', used, most, whose),
       CASE WHEN most - used < 8 THEN remedy || ': each jobqd needs four connections, and waits until it gets them' END
  FROM limits
 ORDER BY most - used LIMIT 1
