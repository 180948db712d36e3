-- The schema's version, and whether transactions see what was committed while they waited for a lock, for the check
-- before a node registers.
SELECT max(v.version), current_setting('transaction_isolation') = 'read committed' FROM @schema@.schema_version v
