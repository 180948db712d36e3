-- `jobqd enqueue`: what was not given has enqueue's own default. The second column says what of it was there already.
--   $1 kind  $2 args  $3 queue  $4 priority  $5 time  $6 delay in ms  $7 max_attempts  $8 key  $9 unique_key
--   $10 tags, separated by commas  $11 meta  $12 timeout in ms  $13 unique_by  $14 on_conflict  $15 replace
--   $16 expires_at  $17 the same as a delay in ms
SELECT e.id, CASE e.conflict WHEN 'ignored' THEN 'existing' ELSE e.conflict END
  FROM @schema@.try_enqueue($1, coalesce($2::jsonb, '{}'), queue => coalesce($3, 'default'),
           priority => coalesce($4::int, 0),
           scheduled_at => coalesce($5::timestamptz, now() + $6::bigint * interval '1 millisecond'),
           max_attempts => $7::int, key => $8, unique_key => $9,
           tags => coalesce(string_to_array($10, ','), '{}'), meta => coalesce($11::jsonb, '{}'),
           timeout_ms => $12::int, unique_by => $13::jsonb, on_conflict => coalesce($14, 'ignore'),
           "replace" => $15::jsonb,
           expires_at => coalesce($16::timestamptz, now() + $17::bigint * interval '1 millisecond')) e
