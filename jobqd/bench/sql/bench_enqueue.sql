-- One job through the function that any language calls.
--   $1 args
SELECT @schema@.enqueue('noop', $1::jsonb, queue => 'bench')
