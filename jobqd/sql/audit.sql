-- Gives back the jobs that this node holds by the database's word, but not by its own. How many; which are locked or
-- refused, for another call. Runs after session.sql.
--   $1 node  $2 ids that the node knows it holds  $3 of these alone, as an earlier call gave them; null: of all
SELECT r.released, (SELECT count(*) FROM jsonb_object_keys(r.remaining)) AS n, r.remaining::text AS remaining
  FROM @schema@._release($1, $2::bigint[], $3::text::jsonb) r
