-- One row beside the queue.
--   $1 args
INSERT INTO @schema@.bench_bare (queue, kind, args, position, max_attempts) VALUES ('bench', 'noop', $1::jsonb, 1, 20) RETURNING id
