-- Ends jobs that have not begun by their time. The answer says how many.
--   $1 those whose time came in the last so many ms; -1: all
SELECT @schema@.expire_jobs(CASE WHEN $1::bigint >= 0 THEN now() - $1 * interval '1 millisecond'
                                 ELSE '-infinity' END) AS expired
