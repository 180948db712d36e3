-- One migration at a time on this schema; held to the end of the transaction.
--   $1 the schema's name
SELECT pg_advisory_xact_lock(hashtextextended('jobq migrate ' || $1, 0))
