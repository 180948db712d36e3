-- `jobqd cancel`, `retry` and `delete` by what jobs are like: upon how many it acted.
--   $1 queue  $2 kind  $3 states, separated by commas  $4 tags, likewise  $5 key  $6 args  $7 inserted before
--   $8 inserted so many ms ago  $9 how many  $10 cancel, retry or delete (each null: any)
WITH f AS MATERIALIZED (
    SELECT jsonb_strip_nulls(jsonb_build_object('all', true, 'queue', $1::text, 'kind', $2::text,
               'state', to_jsonb(string_to_array($3, ',')), 'tags', to_jsonb(string_to_array($4, ',')), 'key', $5::text,
               'inserted_before', coalesce(to_jsonb($7::text), to_jsonb(now() - $8::bigint * interval '1 millisecond')),
               'limit', $9::bigint))
           || CASE WHEN $6::jsonb IS NULL THEN '{}' ELSE jsonb_build_object('args', $6::jsonb) END AS filter
)
SELECT CASE $10::text WHEN 'cancel' THEN @schema@.cancel_many(f.filter)
                      WHEN 'retry' THEN @schema@.retry_many(f.filter)
                      WHEN 'delete' THEN @schema@.delete_many(f.filter) END
  FROM f
