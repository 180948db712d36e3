-- What went wrong with a job, attempt by attempt, for `jobqd job`: `how` says in one line where it ran, for how long, how
-- it ended and what it used, `note` what came of it, `more` holds the members that nobody knows here. An
-- operator's UPDATE may have put anything into `errors`.
--   $1 id
SELECT e.value ->> 'attempt' AS attempt, coalesce(@schema@._in_zone(@schema@._time_of(e.value -> 'at'), 'UTC'), e.value ->> 'at') AS at, e.value ->> 'kind' AS kind,
       e.value ->> 'error' AS error,
       nullif(concat_ws(', ', 'on ' || t.node, 'claimed ' || coalesce(@schema@._in_zone(@schema@._time_of(to_jsonb(t.claimed_at)), 'UTC'), t.claimed_at),
           'ran ' || CASE WHEN n.run_ms < 1000 THEN n.run_ms || ' ms' ELSE round(n.run_ms / 1000, 3) || ' s' END,
           t.signal, 'exit status ' || n.exit_code,
           'cpu ' || CASE WHEN n.cpu_ms < 1000 THEN n.cpu_ms || ' ms' ELSE round(n.cpu_ms / 1000, 3) || ' s' END,
           'memory ' || round(n.max_rss_kb / 1024, 1) || ' MiB'), '') AS how,
       e.value ->> 'detail' AS detail, e.value ->> 'output' AS output,
       CASE WHEN t.discarded IS NOT NULL
            THEN 'discarded as poison: ' || t.discarded || '; a retry by hand begins a new count'
            WHEN t.cancelled IS NOT NULL THEN 'cancelled ' || t.cancelled END AS note,
       more.text AS more
  FROM @schema@.all_jobs j
 CROSS JOIN LATERAL (SELECT @schema@._readable(j.errors) AS errors) r
 CROSS JOIN LATERAL jsonb_array_elements(CASE WHEN jsonb_typeof(r.errors) = 'array' THEN r.errors
                                              WHEN r.errors IN ('{}', 'null', '""') THEN '[]'
                                              ELSE jsonb_build_array(r.errors) END) WITH ORDINALITY w (entry, nth)
 CROSS JOIN LATERAL (SELECT CASE WHEN jsonb_typeof(w.entry) = 'object' THEN w.entry
                                 ELSE jsonb_build_object('error', w.entry) END AS value) e
 CROSS JOIN LATERAL (
        SELECT max(m.val #>> '{}') FILTER (WHERE m.key = 'node') AS node,
               max(m.val #>> '{}') FILTER (WHERE m.key = 'claimed_at') AS claimed_at,
               max(m.val #>> '{}') FILTER (WHERE m.key = 'signal') AS signal,
               max(m.val #>> '{}') FILTER (WHERE m.key = 'discarded') AS discarded,
               max(m.val #>> '{}') FILTER (WHERE m.key = 'cancelled') AS cancelled
          FROM jsonb_each(e.value) m (key, val)
         WHERE jsonb_typeof(m.val) = 'string') t
 CROSS JOIN LATERAL (
        SELECT max(m.val::numeric) FILTER (WHERE m.key = 'run_ms') AS run_ms,
               max(m.val::numeric) FILTER (WHERE m.key = 'cpu_ms') AS cpu_ms,
               max(m.val::numeric) FILTER (WHERE m.key = 'max_rss_kb') AS max_rss_kb,
               max(m.val::numeric) FILTER (WHERE m.key = 'exit_code') AS exit_code
          FROM (SELECT key, CASE WHEN jsonb_typeof(val) = 'number' THEN val END AS val
                  FROM jsonb_each(e.value) m (key, val)) m) n
 CROSS JOIN LATERAL (
        SELECT jsonb_object_agg(m.key, m.val)::text AS text
          FROM jsonb_each(e.value) m (key, val)
         WHERE m.key NOT IN ('attempt', 'at', 'kind', 'error', 'detail', 'output')
           AND NOT (m.key IN ('node', 'claimed_at', 'signal', 'discarded', 'cancelled')
                    AND jsonb_typeof(m.val) = 'string')
           AND NOT (m.key IN ('run_ms', 'cpu_ms', 'max_rss_kb', 'exit_code') AND jsonb_typeof(m.val) = 'number')) more
 WHERE j.id = $1::bigint
 ORDER BY w.nth
