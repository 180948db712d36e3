-- What the claim does, with the plan that the work connection would use. The node's id comes through a setting because
-- EXECUTE takes no parameters of an outer statement.
EXPLAIN (ANALYZE, BUFFERS) EXECUTE claim_512 ('bench', array_fill(0::bigint, ARRAY[10]),
    current_setting('jobq_bench.node')::bigint, 0)
