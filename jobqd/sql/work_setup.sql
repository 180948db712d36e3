-- The session of the work connection. Planner settings for the claim and the acks: a generic plan, made once, that walks
-- the indexes at every table size (a plan made while the table was empty would read it in sequence ever after). The
-- time-outs keep one stuck lock from holding up a queue for ever, and let the server notice that we are gone. The
-- database's own statement_timeout would end the audit of a large table, again and again.
SET plan_cache_mode = force_generic_plan;
SET enable_seqscan = off;
SET enable_sort = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET enable_bitmapscan = off;
SET jit = off;
SET lock_timeout = '10s';
SET statement_timeout = 0;
SET default_transaction_isolation = 'read committed';
SET tcp_keepalives_idle = 5;
SET tcp_keepalives_interval = 2;
SET tcp_keepalives_count = 3
