-- Nodes that hold jobs but have no row any more (somebody has deleted it) get one again: session -2 shuts them out, and
-- the lifeline ends them like any other once their lease must have run out. Reads the table through.
--   $1 lease in ms
INSERT INTO @schema@.nodes (id, session, name, host, pid, pid_start, version, expires_at)
       OVERRIDING SYSTEM VALUE
SELECT stray.id, -2, format('removed-%s', stray.id), '-', 0, 0, '-',
       clock_timestamp() + $1 * interval '1 millisecond'
  FROM (SELECT DISTINCT j.attempted_by AS id
          FROM @schema@.jobs j
         WHERE j.state = 'executing'
           AND NOT EXISTS (SELECT FROM @schema@.nodes n WHERE n.id = j.attempted_by)) stray
 WHERE stray.id IS NOT NULL
    ON CONFLICT DO NOTHING
