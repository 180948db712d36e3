-- Crons of living nodes' configurations that the database refuses: their jobs are not enqueued, or by an older section.
-- What a node has written is its own word, and may be of any form.
SELECT 'fail', format('node %s has crons in its configuration that the database refuses: %s', n.name, n.reload ->> 'crons'),
       'mend the [cron NAME] section in the configuration of that node, then: jobqd reload --wait'
  FROM @schema@.nodes n
 WHERE n.expires_at > clock_timestamp() AND n.reload ->> 'crons' IS NOT NULL
 ORDER BY n.name
