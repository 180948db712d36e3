-- Every node, for the failure detector over their leases: its id, the mark of its last renewal and its lease in ms.
-- The clock's value does not matter: only that a renewal changes the mark, which reap_mark.sql compares.
-- A row with infinite or far-off times (an UPDATE by hand) belongs to no living node: a renewal would have set them.
-- A node that was found dead (session -1), and is kept for jobs that could not be given back, has no lease any more: 0.
SELECT n.id, (extract(epoch FROM t.renewed_at) * 1000000)::bigint AS mark,
       CASE WHEN n.session < 0 THEN 0
            ELSE (extract(epoch FROM t.expires_at - t.renewed_at) * 1000)::bigint END AS lease_ms
  FROM @schema@.nodes n
 CROSS JOIN LATERAL (
        @lease_times@) t
