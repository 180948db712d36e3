-- Before each question of doctor, in a transaction that changes nothing: nothing is waited for too long.
SET LOCAL statement_timeout = '10s';
SET LOCAL lock_timeout = '2s'
