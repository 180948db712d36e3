-- The history's partitions of today and tomorrow, and what landed in the default ones for want of one.
WITH days (day) AS (
    SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date + n FROM generate_series(0, 1) n
), missing AS (
    SELECT string_agg(w.name, ', ' ORDER BY w.name) AS names
      FROM (SELECT p.parent || to_char(d.day, '"_p"YYYYMMDD') AS name
              FROM days d, (VALUES ('_finished_completed'), ('_finished_failed')) p (parent)) w
     WHERE to_regclass(format('@schema@.%I', w.name)) IS NULL
)
SELECT 'warn', format('partition %s is missing: finished jobs go to a default partition, where they are deleted row by row', names),
       'the leader creates it within an hour; by hand: '
       'SELECT @schema@._create_partitions((now() AT TIME ZONE ''UTC'')::date, 4)'
  FROM missing WHERE names IS NOT NULL
UNION ALL
SELECT 'warn', 'finished jobs are in a default partition',
       'create partitions from their oldest finished_at on: SELECT @schema@._create_partitions(DATE, DAYS)'
 WHERE EXISTS (SELECT FROM @schema@._finished_completed_default) OR EXISTS (SELECT FROM @schema@._finished_failed_default)
