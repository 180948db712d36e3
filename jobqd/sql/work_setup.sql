-- The session of the work connection, beyond session_setup.sql. Planner settings for the claim and the acks: a generic plan,
-- made once, that walks the indexes at every table size (a plan made while the table was empty would read it in sequence ever
-- after). The time-outs keep one lock from holding up all queues (the cycle is then made anew without the locked job:
-- migrations/schema/apart.sql), and let the server notice that we are gone.
SET plan_cache_mode = force_generic_plan;
SET enable_indexscan = on;
SET enable_nestloop = on;
SET enable_tidscan = on;
SET enable_seqscan = off;
SET enable_sort = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET enable_bitmapscan = off;
SET from_collapse_limit = 8;
SET join_collapse_limit = 8;
SET jit = off;
SET lock_timeout = '250ms';
SET tcp_keepalives_idle = 5;
SET tcp_keepalives_interval = 2;
SET tcp_keepalives_count = 3
