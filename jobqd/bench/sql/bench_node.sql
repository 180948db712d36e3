-- A node to claim for that is no jobqd; its id is also left in a setting of the transaction.
WITH node AS (
    INSERT INTO @schema@.nodes (name, host, pid, pid_start, version, expires_at)
    VALUES ('bench', '-', 0, 0, '-', 'infinity')
    RETURNING id
)
SELECT node.id, set_config('jobq_bench.node', node.id::text, true) FROM node
