-- The lifeline, second step: removes the nodes that bury_mark.sql marked and gives their jobs back. How many nodes went; how
-- many jobs are available again, ended, or left; the first node's name, or what keeps the first job; what
-- to tell of the jobs.
SELECT r.removed, r.again, r.ended, r.remaining, coalesce(r.note, r.name, '') AS text, coalesce(r.stories::text, '') AS stories
  FROM @schema@._rescue() r
