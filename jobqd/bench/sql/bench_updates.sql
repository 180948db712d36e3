-- How often rows of the live table were updated, and how often without touching an index (HOT).
SELECT pg_stat_get_tuples_updated(c.oid), pg_stat_get_tuples_hot_updated(c.oid)
  FROM pg_class c
 WHERE c.oid = '@schema@.jobs'::regclass
