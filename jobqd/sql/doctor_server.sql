-- Who we are, and where: the pid shows a pooler, the time a clock that is off.
SELECT pg_backend_pid(), extract(epoch FROM clock_timestamp()) * 1000, current_user, current_database(),
       current_setting('server_version')
