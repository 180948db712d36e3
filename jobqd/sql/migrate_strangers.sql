-- Why no step runs in this schema: it is not ours. The first of the reasons, and how many there are.
--   $1 whether rights are about to be made anew: those that go by that are no reason
WITH RECURSIVE
@strangers@
SELECT s.found, s.remedy, count(*) OVER () FROM strangers s WHERE NOT ($1::boolean AND s.is_grant) ORDER BY s.nth, s.found LIMIT 1
