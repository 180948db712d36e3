-- How many live jobs there are, counted to a thousand.
SELECT count(*) FROM (SELECT FROM @schema@.jobs LIMIT 1000) j
