-- What this node's configuration says of crons. How many rows were changed by it; how many somebody else has locked; what
-- was refused.
--   $1 node's name  $2 the sections, an object by name
SELECT d.changed, d.busy, d.fault FROM @schema@._cron_declare($1, $2) d
