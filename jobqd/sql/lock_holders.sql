-- Who holds a lock that this node waits for; empty: none does any more.
--   $1 node
SELECT coalesce(@schema@._lock_holders($1), '') AS holders
