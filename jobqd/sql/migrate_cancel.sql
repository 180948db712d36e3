-- Ends what a session does at the moment, if we may.
--   $1 its pid
SELECT pg_cancel_backend($1::int)
