-- What went wrong with a job, attempt by attempt, for `jobqd job`.
--   $1 id
SELECT e.value ->> 'attempt' AS attempt, e.value ->> 'at' AS at, e.value ->> 'kind' AS kind,
       e.value ->> 'error' AS error, e.value ->> 'detail' AS detail, e.value ->> 'output' AS output,
       nullif((e.value - '{attempt,at,kind,error,detail,output}'::text[])::text, '{}') AS more
  FROM @schema@.all_jobs j
 CROSS JOIN LATERAL jsonb_array_elements(j.errors) WITH ORDINALITY e (value, nth)
 WHERE j.id = $1::bigint
 ORDER BY e.nth
