-- `jobqd enqueue`: what was not given has enqueue's own default.
--   $1 kind  $2 args  $3 queue  $4 priority  $5 time  $6 delay in ms  $7 max_attempts  $8 key  $9 unique_key
--   $10 tags, separated by commas  $11 meta  $12 timeout in ms
SELECT @schema@.enqueue($1, coalesce($2::jsonb, '{}'), queue => coalesce($3, 'default'),
           priority => coalesce($4::int, 0),
           scheduled_at => coalesce($5::timestamptz, now() + $6::bigint * interval '1 millisecond'),
           max_attempts => coalesce($7::int, 20), key => $8, unique_key => $9,
           tags => coalesce(string_to_array($10, ','), '{}'), meta => coalesce($11::jsonb, '{}'),
           timeout_ms => $12::int)
