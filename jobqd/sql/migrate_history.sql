-- What schema_version tells of each step: its name, and when it was applied; null where no row is there.
--   $1 how many steps
SELECT v.name, to_char(v.applied_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
  FROM generate_series(1, $1::int) AS step (n)
  LEFT JOIN @schema@.schema_version v ON v.version = step.n
 ORDER BY step.n
