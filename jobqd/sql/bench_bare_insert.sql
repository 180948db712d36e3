-- One row beside the queue.
--   $1 args
INSERT INTO @schema@.bench_bare (queue, kind, args, position) VALUES ('bench', 'noop', $1::jsonb, 1) RETURNING id
