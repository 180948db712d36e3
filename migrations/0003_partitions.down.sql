-- Undoes migration 3. The partitions that were made stay, with the history that they hold.

DROP FUNCTION @schema@.drop_partitions(interval, interval);
DROP FUNCTION @schema@.create_partitions(date, int);
