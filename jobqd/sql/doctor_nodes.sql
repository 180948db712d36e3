-- Nodes whose lease has ended, whose upgrade came to nothing, and whether any node is the leader.
WITH now AS (SELECT clock_timestamp() AS at)
SELECT 'warn', format('node %s (pid %s) is dead: its lease ended %s ago', n.name, n.pid, date_trunc('second', now.at - n.expires_at)),
       CASE WHEN EXISTS (SELECT FROM @schema@.nodes l WHERE l.expires_at > now.at)
            THEN 'a living node buries it within one lease, and gives its jobs back'
            ELSE 'start a jobqd: it buries it, and gives its jobs back' END
  FROM @schema@.nodes n, now WHERE n.expires_at <= now.at AND isfinite(n.expires_at)
UNION ALL
SELECT CASE WHEN EXISTS (SELECT FROM @schema@.jobs j WHERE j.position IS NOT NULL) THEN 'fail' ELSE 'warn' END,
       'no node lives: no job is run', 'start a jobqd'
  FROM now WHERE NOT EXISTS (SELECT FROM @schema@.nodes l WHERE l.expires_at > now.at)
UNION ALL
SELECT 'warn', 'no node is the leader: scheduled jobs do not become due',
       'one takes the lead within a lease; if none does, look at the logs for "leader"'
  FROM now
 WHERE EXISTS (SELECT FROM @schema@.nodes l WHERE l.expires_at > now.at)
   AND NOT EXISTS (SELECT FROM @schema@._leader l JOIN @schema@.nodes n ON n.id = l.node_id WHERE l.expires_at > now.at)
UNION ALL
SELECT 'warn', format('node %s could not be upgraded in place: %s', n.name, n.upgrade ->> 'error'),
       'mend that, and run jobqd upgrade again'
  FROM @schema@.nodes n, now WHERE n.expires_at > now.at AND n.upgrade ->> 'error' IS NOT NULL
UNION ALL
SELECT 'warn', format('node %s has refused its configuration when it last read it, and goes by the old one: %s', n.name,
                      n.reload ->> 'error'),
       'jobqd config check; when it says ok, jobqd reload --wait'
  FROM @schema@.nodes n, now WHERE n.expires_at > now.at AND n.reload ->> 'state' = 'refused'
