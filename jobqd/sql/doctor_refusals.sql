-- Jobs that the database refuses to write, and what it says of the first one.
WITH r AS (
    SELECT count(*) AS jobs, count(*) FILTER (WHERE f.outcome IS NOT NULL) AS ended, min(f.job_id) AS first
      FROM @schema@.refusals f
     WHERE f.sqlstate <> '55P03' OR f.outcome IS NOT NULL -- locks come and go
)
SELECT CASE WHEN r.jobs = 0 THEN 'ok' ELSE 'warn' END,
       CASE WHEN r.jobs = 0 THEN 'the database refuses no jobs'
            ELSE format('the database refuses to write %s job%s (%s of them already ended); job %s (%s): %s', r.jobs,
                        CASE r.jobs WHEN 1 THEN '' ELSE 's' END, r.ended, r.first,
                        (SELECT f.doing FROM @schema@.refusals f WHERE f.job_id = r.first),
                        (SELECT f.message FROM @schema@.refusals f WHERE f.job_id = r.first)) END,
       CASE WHEN r.jobs > 0
            THEN 'fix what the message names (your foreign key, trigger, index or constraint); jobqd retries by itself; '
                 'SELECT * FROM @schema@.refusals lists all' END
  FROM r
