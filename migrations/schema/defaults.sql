-- The defaults of a new job that take a function.

-- A job's place in its line. The transaction's id is assigned before the position is taken, and CASE keeps
-- that order: so whoever reads the sequence's value and then takes a transaction id of its own knows that
-- each position up to that value belongs to a smaller transaction id. The claim cursor's safe base rests
-- on this (jobqd/pure/cursor.h). Without a SET clause, so that the planner can inline it.
CREATE OR REPLACE FUNCTION @schema@._next_position() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN pg_catalog.pg_current_xact_id() IS NOT NULL
                THEN pg_catalog.nextval('@schema@.jobs_position_seq'::pg_catalog.regclass) END
$$;

-- SECURITY DEFINER: who enqueues may not read the queues.
CREATE OR REPLACE FUNCTION @schema@._queue_attempts(queue text) RETURNS int
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce((SELECT q.max_attempts FROM @schema@.queues q WHERE q.name = $1), 20)
$$;

-- The default of max_attempts in a plain INSERT: 20 while no queue sets another; else null, and _jobs_before_insert takes the
-- queue's. Each such INSERT calls this, so it has no SET clause, and every name is qualified.
CREATE OR REPLACE FUNCTION @schema@._default_attempts() RETURNS int
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN EXISTS (SELECT FROM @schema@.queues q WHERE q.max_attempts IS NOT NULL) THEN NULL ELSE 20 END
$$;
