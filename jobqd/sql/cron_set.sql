-- `jobqd cron set`: what was not given has cron_set's own default.
--   $1 name  $2 schedule  $3 kind  $4 args  $5 timezone  $6 queue  $7 priority  $8 max_attempts  $9 missed  $10 meta
--   $11 tags, separated by commas  $12 timeout in ms  $13 overlap  $14 expires in ms  $15 unique_by
SELECT @schema@.cron_set($1, $2, $3, coalesce($4::jsonb, '{}'), coalesce($5, 'UTC'), coalesce($6, 'default'),
           coalesce($7::int, 0), $8::int, coalesce($9, 'once'), coalesce($10::jsonb, '{}'),
           coalesce(string_to_array($11, ','), '{}'), $12::int,
           coalesce($13, 'allow'), $14::bigint * interval '1 millisecond', $15::jsonb)
