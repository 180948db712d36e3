-- The server process that a jobqd's work connection talks to.
SELECT a.pid FROM pg_stat_activity a
 WHERE a.application_name = 'jobqd work' AND a.datname = current_database()
 ORDER BY a.backend_start DESC LIMIT 1
