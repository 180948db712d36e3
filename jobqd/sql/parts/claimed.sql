-- Large args or meta come back as null: nobody knows before the claim how large the next jobs are, and a batch of
-- large ones would fill the daemon's memory. It gets them by fetch.sql, as many as it wants to hold. What
-- counts first is what is stored (perhaps compressed), since that costs nothing to ask: @whole@ bytes. The text of a few
-- stored bytes can still be long (a number keeps 131,072 digits in 8 bytes), and is not sent if it is: a short text is made
-- twice, which costs less than to keep it; a longer one once, in a subquery (OFFSET 0: or it would be twice, too). Of 8 bytes
-- no number can be a part: most jobs' meta is {}.
RETURNING j.id, j.position, j.priority, j.attempt, j.max_attempts, j.timeout_ms, j.kind,
          CASE WHEN pg_column_size(j.args) <= 100 AND octet_length(j.args::text) <= 2 * @whole@ THEN j.args::text
               WHEN pg_column_size(j.args) <= @whole@ THEN (
                    SELECT CASE WHEN octet_length(t.args) <= 2 * @whole@ THEN t.args END
                      FROM (SELECT j.args::text AS args OFFSET 0) t) END AS args,
          CASE WHEN pg_column_size(j.meta) <= 8 THEN j.meta::text
               WHEN pg_column_size(j.meta) <= @whole@ THEN (
                    SELECT CASE WHEN octet_length(t.meta) <= 2 * @whole@ THEN t.meta END
                      FROM (SELECT j.meta::text AS meta OFFSET 0) t) END AS meta
