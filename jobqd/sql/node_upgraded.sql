-- Notes how the last upgrade in place ended, for `jobqd upgrade` and whoever looks.
--   $1 node  $2 the version that runs now  $3 error; null: it took place
UPDATE @schema@.nodes
   SET version = $2,
       upgrade = jsonb_build_object('at', clock_timestamp(), 'from', version, 'to', $2::text, 'error', $3::text)
 WHERE id = $1
RETURNING id
