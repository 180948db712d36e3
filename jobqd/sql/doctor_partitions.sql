-- The history's partitions of today and tomorrow, and what landed in the default ones for want of one.
WITH days (day) AS (
    SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date + n FROM generate_series(0, 1) n
), missing AS (
    SELECT string_agg(w.name, ', ' ORDER BY w.name) AS names
      FROM (SELECT p.parent || to_char(d.day, '"_p"YYYYMMDD') AS name
              FROM days d, (VALUES ('_finished_completed'), ('_finished_failed')) p (parent)) w
     WHERE to_regclass(format('@schema@.%I', w.name)) IS NULL
)
SELECT 'warn', format('partition %s is missing: ended jobs go to a default partition, where they are deleted row by row', names),
       'the leader makes it within the hour; by hand: '
       'SELECT @schema@._create_partitions((now() AT TIME ZONE ''UTC'')::date, 4)'
  FROM missing WHERE names IS NOT NULL
UNION ALL
SELECT 'warn', 'ended jobs lie in a default partition', 'as above, from the oldest finished_at among them on'
 WHERE EXISTS (SELECT FROM @schema@._finished_completed_default) OR EXISTS (SELECT FROM @schema@._finished_failed_default)
