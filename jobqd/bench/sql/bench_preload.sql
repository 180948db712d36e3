-- A backlog in one statement.
--   $1 how many
INSERT INTO @schema@.jobs (queue, kind, args, max_attempts)
SELECT 'bench', 'noop', jsonb_build_object('n', n), 20 FROM generate_series(1, $1::bigint) n
