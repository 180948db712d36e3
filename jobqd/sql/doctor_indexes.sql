-- An index on what a claim changes makes each claim an update of every index, instead of a HOT one; and a claim without
-- its index reads the whole table.
SELECT 'warn', format('index %s on jobs covers %s, which every claim changes: claims are no longer HOT updates',
                      i.indexrelid::regclass, string_agg(a.attname, ', ' ORDER BY a.attnum)),
       format('DROP INDEX %s; find another way to do what it was created for', i.indexrelid::regclass)
  FROM pg_index i
  JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
                  AND d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = d.refobjsubid
 WHERE i.indrelid = '@schema@.jobs'::regclass AND a.attname IN ('state', 'attempt', 'attempted_at', 'attempted_by')
 GROUP BY i.indexrelid
UNION ALL
SELECT 'fail', format('index %s of jobs is missing or invalid: claims read the whole table', w.name),
       'as the owner, run the CREATE INDEX of that name from migration 1 (jobqd migrate print); drop an invalid index first'
  FROM (VALUES ('jobs_claim'), ('jobs_due'), ('jobs_pkey')) w (name)
 WHERE NOT EXISTS (SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                    WHERE i.indrelid = '@schema@.jobs'::regclass AND c.relname = w.name AND i.indisvalid)
