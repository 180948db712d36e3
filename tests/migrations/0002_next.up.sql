-- A step as a later release may have it, for the tests (jobqd_next): a column that an index needs the table for, a table of its
-- own, and functions and triggers that have changed, whose file is included again.

ALTER TABLE @schema@.jobs ADD COLUMN next_note text;
CREATE INDEX jobs_next_note ON @schema@.jobs (next_note) WHERE next_note IS NOT NULL;
CREATE TABLE @schema@._next (
    job_id bigint PRIMARY KEY,
    note   text NOT NULL
);
CREATE FUNCTION @schema@._next_of(job_id bigint) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT n.note FROM @schema@._next n WHERE n.job_id = $1
$$;
@schema/insert.sql@
