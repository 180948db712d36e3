-- Before each question of doctor: nothing is changed, and nothing is waited for too long.
BEGIN READ ONLY;
SET LOCAL statement_timeout = '10s';
SET LOCAL lock_timeout = '2s'
