-- Notes how the last upgrade in place ended, for `jobqd upgrade` and whoever looks. The new program knows of no reload that was
-- under way: who waits for one is told so.
--   $1 node  $2 the version that runs now  $3 error; null: it took place
UPDATE @schema@.nodes
   SET version = $2,
       upgrade = jsonb_build_object('at', clock_timestamp(), 'from', version, 'to', $2::text, 'error', $3::text),
       reload = CASE WHEN $3::text IS NULL AND reload ->> 'state' = 'begun'
                     THEN jsonb_build_object('at', clock_timestamp(), 'state', 'failed', 'leaving', 0, 'error',
                                             'an upgrade in place came in between: how it ended is not known')
                     ELSE reload END
 WHERE id = $1
RETURNING id
