-- The stager: makes due jobs available. How many; how long until the next one is due, in ms: 0: now, -1: none waits.
SELECT s.staged, s.in_ms FROM @schema@._stage() s
