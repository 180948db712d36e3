-- The history's partitions of today and the next days.
SELECT @schema@._create_partitions((now() AT TIME ZONE 'UTC')::date, 4)
