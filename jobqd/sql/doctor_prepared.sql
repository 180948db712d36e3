-- Prepared transactions that nobody ends: they hold vacuum back, and their locks.
--   $1 for how long, in ms, that is nothing to mention
SELECT 'warn',
       format('prepared transaction %L of role %s has held vacuum back for %s, %s transactions', p.gid, p.owner,
              date_trunc('second', clock_timestamp() - p.prepared), age(p.transaction)),
       format('COMMIT PREPARED %1$L or ROLLBACK PREPARED %1$L, as %2$s', p.gid, p.owner)
  FROM pg_prepared_xacts p
 WHERE p.database = current_database() AND clock_timestamp() - p.prepared >= $1::bigint * interval '1 millisecond'
 ORDER BY p.prepared
