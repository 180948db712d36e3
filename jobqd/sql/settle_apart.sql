-- Settles attempts one by one, after the database refused some of them together. At most 50. Parameters as settle.sql's; the
-- fates stripped, parked and stuck besides, and what the database said, or who holds the lock.
SELECT s.id, s.fate, s.message, s.became, (extract(epoch FROM s.due) * 1000)::bigint AS due_ms, s.hooks
  FROM @schema@._settle_apart($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) s
