-- Notifications.

-- jobq.notify = off is for a transaction that is to be prepared: PREPARE TRANSACTION refuses one that has notified. The
-- nodes then find the change by polling, within their poll_interval. A setting made with SET LOCAL is empty after its
-- transaction. Every wake-up calls this function, so it has no SET clause, and every name is qualified.
CREATE OR REPLACE FUNCTION @schema@._notify(message text) RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    setting CONSTANT pg_catalog.text := pg_catalog.lower(pg_catalog.current_setting('jobq.notify', true));
BEGIN
    IF setting OPERATOR(pg_catalog.=) ANY ('{off,false,no,0}'::pg_catalog.text[]) THEN
        RETURN;
    ELSIF setting OPERATOR(pg_catalog.<>) ALL ('{on,true,yes,1,""}'::pg_catalog.text[]) THEN
        RAISE EXCEPTION 'jobq.notify must be on or off, got %', pg_catalog.to_json(setting)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_catalog.pg_notify('@channel@', message);
END
$$;
COMMENT ON FUNCTION @schema@._notify IS 'Notifies the nodes, unless jobq.notify is off in this session.';

-- NOTIFY takes a lock on the whole server at commit, so only a node that waits is worth one.
CREATE OR REPLACE FUNCTION @schema@._wake(queues text[]) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT @schema@._notify('queue ' || q.queue)
      FROM (SELECT DISTINCT i.queue FROM @schema@._idle i WHERE i.queue = ANY ($1)) q
$$;
COMMENT ON FUNCTION @schema@._wake IS 'Wakes the nodes that wait idle for these queues.';
