-- Ends jobs that have not begun by their time. How many it found (with 1000 there may be more), and what to tell of them.
--   $1 those whose time came in the last so many ms; -1: all
SELECT e.found_now, coalesce(e.stories::text, '') AS stories
  FROM @schema@._expire(CASE WHEN $1::bigint >= 0 THEN now() - $1 * interval '1 millisecond' ELSE '-infinity' END) e
