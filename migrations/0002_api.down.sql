-- Undoes migration 2. The roles stay: they belong to the whole server, and other databases may use them.

DROP FUNCTION @schema@.complete(bigint, int, jsonb);
DROP FUNCTION @schema@.retry(bigint);
DROP FUNCTION @schema@.cancel(bigint);
DROP FUNCTION @schema@.state_of(text, bigint);
DROP FUNCTION @schema@.enqueue_many(jsonb);
DROP FUNCTION @schema@.enqueue_many_unique(jsonb);
DROP FUNCTION @schema@.json_jobs(jsonb);
DROP FUNCTION @schema@.raise_json_job_fault(jsonb);
DROP FUNCTION @schema@.enqueue(text, jsonb, text, int, timestamptz, int, text, text, text[], jsonb, int);
DROP FUNCTION @schema@.json_job_fault(jsonb);
DROP FUNCTION @schema@.json_unknown_key_text(jsonb);
DROP FUNCTION @schema@.json_is_no_int(jsonb);
