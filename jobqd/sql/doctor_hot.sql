-- How many updates of the live table touched no index.
SELECT CASE WHEN t.n_tup_upd >= 1000 AND t.n_tup_hot_upd < t.n_tup_upd / 2 THEN 'warn' ELSE 'ok' END,
       format('%s of %s updates of jobs were HOT', t.n_tup_hot_upd, t.n_tup_upd),
       CASE WHEN t.n_tup_upd >= 1000 AND t.n_tup_hot_upd < t.n_tup_upd / 2
            THEN 'usual where most jobs are scheduled or retried; else an index of your own, or a fillfactor that leaves no '
                 'room: see the other checks' END
  FROM pg_stat_all_tables t WHERE t.relid = '@schema@.jobs'::regclass
