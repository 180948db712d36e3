-- Executing jobs that no living node holds.
WITH lost AS (
    SELECT count(*) AS jobs, min(j.id) AS first
      FROM @schema@.jobs j
     WHERE j.state = 'executing' AND j.position IS NOT NULL
       AND NOT EXISTS (SELECT FROM @schema@.nodes n WHERE n.id = j.attempted_by AND n.expires_at > clock_timestamp())
), alive AS (
    SELECT EXISTS (SELECT FROM @schema@.nodes n WHERE n.expires_at > clock_timestamp()) AS any
)
SELECT CASE WHEN l.jobs = 0 THEN 'ok' WHEN a.any THEN 'warn' ELSE 'fail' END,
       CASE WHEN l.jobs = 0 THEN 'every executing job is held by a live node'
            ELSE format('%s executing job%s held by no live node, the first is job %s', l.jobs,
                        CASE l.jobs WHEN 1 THEN ' is' ELSE 's are' END, l.first) END,
       CASE WHEN l.jobs = 0 THEN NULL
            WHEN a.any THEN 'wait: the leader gives them back within two leases'
            ELSE 'start a jobqd: it gives them back' END
  FROM lost l, alive a
