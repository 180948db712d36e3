-- Notes how far positions have been given out, and how far transactions have ended. First in its batch.
--   $1 the position noted last
--
-- The sequence's row is read before the transaction id is taken, and _next_position() takes its id before its
-- position: so every position up to last_value belongs to a transaction with a smaller id than `upto`. Once
-- the oldest running transaction is younger than that, those positions are all visible or void. (The snapshot's
-- own xmax would not do: it is one past the newest *ended* transaction, and older ids may still run above it.)
-- Without a new position no transaction id is spent.
SELECT s.last_value - (NOT s.is_called)::int AS position,
       CASE WHEN s.is_called AND s.last_value > $1 THEN pg_current_xact_id()::text::bigint END AS upto,
       pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS oldest
  FROM @schema@.jobs_position_seq s
