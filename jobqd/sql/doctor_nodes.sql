-- Nodes whose lease has ended, whose upgrade came to nothing, and whether any node is the leader.
WITH now AS (SELECT clock_timestamp() AS at)
SELECT 'warn', format('node %s (pid %s) is dead: its lease expired %s ago', n.name, n.pid, date_trunc('second', now.at - n.expires_at)),
       CASE WHEN EXISTS (SELECT FROM @schema@.nodes l WHERE l.expires_at > now.at)
            THEN 'wait: a live node removes it within one lease and gives its jobs back'
            ELSE 'start a jobqd: it removes the dead node and gives its jobs back' END
  FROM @schema@.nodes n, now WHERE n.expires_at <= now.at AND isfinite(n.expires_at)
UNION ALL
SELECT CASE WHEN EXISTS (SELECT FROM @schema@.jobs j WHERE j.position IS NOT NULL) THEN 'fail' ELSE 'warn' END,
       'no node is alive: no jobs run', 'start a jobqd'
  FROM now WHERE NOT EXISTS (SELECT FROM @schema@.nodes l WHERE l.expires_at > now.at)
UNION ALL
SELECT 'warn', 'no node is the leader: scheduled jobs do not become due',
       'wait: one takes the lead within a lease; if none does, search the logs for "leader"'
  FROM now
 WHERE EXISTS (SELECT FROM @schema@.nodes l WHERE l.expires_at > now.at)
   AND NOT EXISTS (SELECT FROM @schema@._leader l JOIN @schema@.nodes n ON n.id = l.node_id WHERE l.expires_at > now.at)
UNION ALL
SELECT 'warn', format('node %s could not be upgraded in place: %s', n.name, n.upgrade ->> 'error'),
       'fix this, then run jobqd upgrade again'
  FROM @schema@.nodes n, now WHERE n.expires_at > now.at AND n.upgrade ->> 'error' IS NOT NULL
UNION ALL
SELECT 'warn', format('node %s refused its new configuration and keeps the old one: %s', n.name,
                      n.reload ->> 'error'),
       'run jobqd config check; once it says ok, run jobqd reload --wait'
  FROM @schema@.nodes n, now WHERE n.expires_at > now.at AND n.reload ->> 'state' = 'refused'
