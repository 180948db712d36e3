-- jobq, migration 1: the whole schema as of the first release, by topic. @schema@ is replaced by the schema's name, quoted as
-- an identifier, and each @schema/...@ by that file. PostgreSQL 14 to 18.
@schema/defaults.sql@
@schema/tables.sql@
@schema/values.sql@
@schema/wake.sql@
@schema/insert.sql@
@schema/enqueue.sql@
@schema/unique.sql@
@schema/ends.sql@
@schema/queues.sql@
@schema/bulk.sql@
@schema/progress.sql@
@schema/retention.sql@
@schema/schedule.sql@
@schema/cron.sql@
@schema/settle.sql@
@schema/apart.sql@
@schema/hooks.sql@
@schema/testing.sql@

-- The first days, so that nothing lands in the default partitions before the first node is up.
DO $$ BEGIN PERFORM @schema@._create_partitions((now() AT TIME ZONE 'UTC')::date, 4); END $$;
