-- Takes back 0011_apart.up.sql.

DROP FUNCTION @schema@._strays(bigint);
DROP FUNCTION @schema@._rescue();
DROP FUNCTION @schema@._adopt_these(bigint[], bigint);
DROP FUNCTION @schema@._rescue_these(bigint[], bigint);
DROP FUNCTION @schema@._orphaned(int, timestamptz, bigint);
CREATE OR REPLACE FUNCTION @schema@.expire_jobs(since timestamptz DEFAULT '-infinity') RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_sort = off AS $$
#variable_conflict use_variable
DECLARE
    due bigint[];
BEGIN
    due := ARRAY(SELECT j.id
                   FROM @schema@.jobs j
                  WHERE j.expires_at <= now() AND j.expires_at >= since AND j.attempt = 0
                    AND j.state IN ('scheduled', 'available', 'retryable', 'suspended')
                  ORDER BY j.expires_at
                  LIMIT 1000
                    FOR UPDATE SKIP LOCKED);
    RETURN CASE WHEN cardinality(due) > 0 THEN @schema@.expire_these(due) ELSE 0 END;
END
$$;

DROP FUNCTION @schema@._expire(timestamptz);
DROP FUNCTION @schema@._expire_these(bigint[], bigint);
DROP FUNCTION @schema@._release(bigint, bigint[], jsonb);
DROP FUNCTION @schema@._release_these(bigint[], bigint);
DROP FUNCTION @schema@._stage();
DROP FUNCTION @schema@._stage_these(bigint[], bigint);
DROP FUNCTION @schema@._claim_apart(text, bigint[], bigint, bigint, int[], bigint[], int);
DROP FUNCTION @schema@._claim_these(bigint[], bigint);
DROP FUNCTION @schema@._all_changed(bigint, bigint[]);
DROP FUNCTION @schema@._apart(text, bigint[], bigint);
DROP FUNCTION @schema@._sweep();
DROP FUNCTION @schema@._settle_again();
DROP FUNCTION @schema@._park(bigint, int, jsonb, text, text, text, jsonb);
DROP FUNCTION @schema@._settle_apart(bigint[], int[], text[], bigint[], jsonb[], jsonb[], bigint[], bigint[], bigint[], bigint,
                                     int, boolean);
DROP FUNCTION @schema@._settle_one(bigint, int, text, bigint, jsonb, jsonb, bigint, bigint, bigint, bigint, int, boolean);
DROP FUNCTION @schema@._settle(bigint[], int[], text[], bigint[], jsonb[], jsonb[], bigint[], bigint[], bigint[], bigint,
                               int, boolean);
DROP FUNCTION @schema@._story(bigint, text, text, int, int, text, timestamptz, jsonb, boolean);
DROP FUNCTION @schema@._is_hooks(jsonb);
DROP FUNCTION @schema@._lock_holders(bigint);
DROP FUNCTION @schema@._holder_of(xid);
DROP FUNCTION @schema@._session_text(int, text);
DROP FUNCTION @schema@._refuse(bigint, text, text, text, jsonb, interval);
DROP TABLE @schema@.refusals;
