-- Every node, for the vigil over their leases: three numbers a node, its id, the mark of its last renewal and its lease
-- in ms. The clock's value does not matter: only that a renewal changes the mark.
SELECT coalesce(string_agg(format('%s %s %s', n.id, (extract(epoch FROM n.renewed_at) * 1000000)::bigint,
                                  (extract(epoch FROM n.expires_at - n.renewed_at) * 1000)::bigint), ' '), '') AS nodes
  FROM @schema@.nodes n
