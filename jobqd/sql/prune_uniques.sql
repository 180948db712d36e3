-- Takes away keys of unique jobs that are gone, a batch. The answer says how many, and from where on to look next; null: from
-- the start.
--   $1 from where on
SELECT p.pruned, p.after FROM @schema@._prune_uniques($1) p
