-- Whether a job is left behind a position near the line's end: looks at few index entries, whatever the table holds.
--   $1 position
SELECT EXISTS (SELECT FROM @schema@.jobs j WHERE j.queue = 'bench' AND j.priority = 0 AND j.position > $1::bigint)::int
