-- Notes how far the last reload is, for `jobqd reload --wait` and whoever looks.
--   $1 node  $2 state  $3 processes from before that run a job  $4 error, a JSON string; null: there is none
UPDATE @schema@.nodes
   SET reload = jsonb_build_object('at', clock_timestamp(), 'state', $2::text, 'leaving', $3::bigint, 'error', $4::text::jsonb)
 WHERE id = $1
RETURNING id
