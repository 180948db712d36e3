-- Functions that give a new job its defaults.

-- The transaction id is assigned before the position is taken, and CASE keeps that order. A session that reads the
-- sequence's value and then takes a transaction id of its own therefore knows that every position up to that value belongs
-- to a smaller transaction id. The safe base of the claim cursor rests on this (jobqd/pure/cursor.h). There is no SET
-- clause, so that the planner can inline the function.
CREATE OR REPLACE FUNCTION @schema@._next_position() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN pg_catalog.pg_current_xact_id() IS NOT NULL
                THEN pg_catalog.nextval('@schema@.jobs_position_seq'::pg_catalog.regclass) END
$$;
COMMENT ON FUNCTION @schema@._next_position IS
    'The next position in a queue''s line, taken after the transaction has its id.';

-- SECURITY DEFINER: an enqueuer may not read the table queues.
CREATE OR REPLACE FUNCTION @schema@._queue_attempts(queue text) RETURNS int
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce((SELECT q.max_attempts FROM @schema@.queues q WHERE q.name = $1), 20)
$$;
COMMENT ON FUNCTION @schema@._queue_attempts IS 'The max_attempts of a new job in this queue: the queue''s value, else 20.';

-- Where it returns null, _jobs_before_insert takes the queue's value. Every plain INSERT calls this function, so it has no
-- SET clause, and every name is qualified.
CREATE OR REPLACE FUNCTION @schema@._default_attempts() RETURNS int
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN EXISTS (SELECT FROM @schema@.queues q WHERE q.max_attempts IS NOT NULL) THEN NULL ELSE 20 END
$$;
COMMENT ON FUNCTION @schema@._default_attempts IS
    'The default of jobs.max_attempts in a plain INSERT: 20, or null while any queue sets a value.';
