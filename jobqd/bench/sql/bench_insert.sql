-- One job by a plain INSERT.
--   $1 args
INSERT INTO @schema@.jobs (queue, kind, args) VALUES ('bench', 'noop', $1::jsonb)
