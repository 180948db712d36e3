-- Notes how far the last reload is, which file the node reads, and which crons of it the database refuses, for
-- `jobqd reload --wait` and whoever looks.
--   $1 node  $2 state; null: there was no reload, or as noted before  $3 processes from before that run a job
--   $4 error, a JSON string; null: there is none  $5 file, a JSON string; null: it reads none  $6 crons, likewise
UPDATE @schema@.nodes
   SET reload = CASE WHEN jsonb_typeof(reload) = 'object' THEN reload ELSE '{}' END
             || CASE WHEN $2::text IS NULL THEN '{}'
                     ELSE jsonb_build_object('at', clock_timestamp(), 'state', $2::text, 'leaving', $3::bigint, 'error', $4::text::jsonb) END
             || jsonb_build_object('file', coalesce($5::text::jsonb, 'null'), 'crons', $6::text::jsonb)
 WHERE id = $1
RETURNING id
