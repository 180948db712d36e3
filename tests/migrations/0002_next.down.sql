-- Undoes the tests' step 2.

DROP FUNCTION @schema@._next_of(bigint);
DROP TABLE @schema@._next;
DROP INDEX @schema@.jobs_next_note;
ALTER TABLE @schema@.jobs DROP COLUMN next_note;
