-- What is bound to an operator or a function of another's: `bound`, with what mends it. A step keeps what its text finds when
-- it runs; before the steps set their own search_path that was whatever stood first on the database's. Only what jobq
-- makes is looked at: a user's own constraint or index may call what it likes. A test compares the list with what the steps make.
parts (sort, place, names) AS (
    VALUES
    ('constraint', 'jobs', 'jobs_attempt_is_not_negative jobs_is_live jobs_kind_is_1_to_128_bytes jobs_max_attempts_is_1_to_1000 '
     'jobs_position_belongs_to_state jobs_priority_is_0_to_9 jobs_queue_is_1_to_128_bytes jobs_timeout_ms_is_positive'),
    ('constraint', '_leader', '_leader_singleton_check'),
    ('constraint', '_pruning', '_pruning_singleton_check'),
    ('constraint', 'queue_nodes', 'queue_nodes_concurrency_check'),
    ('constraint', 'queues', 'queues_concurrency_check queues_max_attempts_check'),
    ('constraint', 'settings', 'settings_max_job_bytes_check settings_singleton_check'),
    ('trigger', 'crons', 'crons_after_insert crons_after_update crons_before_insert crons_before_update'),
    ('trigger', '_finished_failed', 'on_discard'),
    ('trigger', 'jobs', 'jobs_after_insert jobs_before_insert'),
    ('default', '_cancels', 'forget requested_at'),
    ('default', 'crons', 'args declared_by meta missed overlap paused priority queue tags timezone updated_at'),
    ('default', '_cron_jobs', 'waits'),
    ('default', 'jobs', 'args attempt errors id inserted_at max_attempts meta position priority queue scheduled_at state tags'),
    ('default', '_leader', 'singleton'),
    ('default', 'nodes', 'booted boots_left queues renewed_at session started_at'),
    ('default', '_pruning', 'left_some next_page rules singleton todo'),
    ('default', 'queue_nodes', 'paused updated_at'),
    ('default', 'queues', 'declared paused updated_at'),
    ('default', 'refusals', 'again_at at tried_at'),
    ('default', 'schema_version', 'applied_at'),
    ('default', 'settings', 'max_job_bytes singleton'),
    ('default', '_uniques', 'held_at'),
    ('index', 'crons', 'crons_due'),
    ('index', '_cron_jobs', 'cron_jobs_cron cron_jobs_waits'),
    ('index', 'finished_jobs', 'finished_jobs_id'),
    ('index', 'jobs', 'jobs_claim jobs_due jobs_expires jobs_unique_key'),
    ('index', '_uniques', 'uniques_job_id'),
    ('view', 'all_jobs', 'all_jobs')
), others (class, oid, nspname, owner) AS (
    SELECT t.class, t.oid, n.nspname, t.owner
      FROM (SELECT 'pg_operator'::regclass, oid, oprnamespace, oprowner FROM pg_operator
            UNION ALL SELECT 'pg_proc'::regclass, oid, pronamespace, proowner FROM pg_proc
            UNION ALL SELECT 'pg_opclass'::regclass, oid, opcnamespace, opcowner FROM pg_opclass
            UNION ALL SELECT 'pg_collation'::regclass, oid, collnamespace, collowner FROM pg_collation
            UNION ALL SELECT 'pg_type'::regclass, oid, typnamespace, typowner FROM pg_type) t (class, oid, nsp, owner)
      JOIN pg_namespace n ON n.oid = t.nsp
     WHERE n.nspname NOT IN ('pg_catalog', '@channel@') AND n.nspname !~ '^pg_toast'
), made (class, oid, relation, sort, name) AS (
    SELECT 'pg_constraint'::regclass, x.oid, x.conrelid, 'constraint', x.conname FROM pg_constraint x WHERE x.contype = 'c' AND x.coninhcount = 0
    UNION ALL
    SELECT 'pg_trigger'::regclass, x.oid, x.tgrelid, 'trigger', x.tgname FROM pg_trigger x WHERE NOT x.tgisinternal AND x.tgparentid = 0
    UNION ALL
    SELECT 'pg_attrdef'::regclass, x.oid, x.adrelid, 'default', a.attname
      FROM pg_attrdef x JOIN pg_attribute a ON a.attrelid = x.adrelid AND a.attnum = x.adnum
    UNION ALL
    SELECT 'pg_class'::regclass, x.indexrelid, x.indrelid, 'index', i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
    UNION ALL
    SELECT 'pg_rewrite'::regclass, x.oid, x.ev_class, 'view', v.relname FROM pg_rewrite x JOIN pg_class v ON v.oid = x.ev_class
), bound (what, remedy) AS (
    SELECT format('%s %s%s is bound to %s of role %s', m.sort, m.name, CASE m.sort WHEN 'view' THEN '' ELSE ' of ' || m.place END,
                  m.calls, m.owner),
           'BEGIN; SET LOCAL search_path = pg_catalog, pg_temp; '
           || regexp_replace(t.text, '(^|[^[:alnum:]_"$.])' || regexp_replace(quote_ident(m.nspname), '([^[:alnum:]_])', E'\\\\\\1', 'g') || E'\\.',
                             E'\\1pg_catalog.', 'g')
           || '; COMMIT'
      FROM (SELECT m.oid, m.relation, m.sort, m.name, m.relation::regclass::text AS place, min(o.nspname::text) AS nspname,
                   min(pg_get_userbyid(o.owner)::text) AS owner, string_agg(DISTINCT i.type || ' ' || i.identity, ', ') AS calls
              FROM others o
              JOIN pg_depend d ON d.refclassid = o.class AND d.refobjid = o.oid AND d.deptype IN ('n', 'a')
              JOIN made m ON m.class = d.classid AND m.oid = d.objid
              JOIN pg_class c ON c.oid = m.relation AND c.relnamespace = (SELECT n.oid FROM pg_namespace n WHERE n.nspname = '@channel@')
              JOIN parts p ON p.sort = m.sort AND p.place = c.relname AND m.name::text = ANY (string_to_array(p.names, ' '))
             CROSS JOIN LATERAL pg_identify_object(o.class, o.oid, 0) i
             GROUP BY m.oid, m.relation, m.sort, m.name) m
     CROSS JOIN LATERAL (
           SELECT CASE m.sort
                  WHEN 'constraint' THEN format('ALTER TABLE %s DROP CONSTRAINT %I; ALTER TABLE %1$s ADD CONSTRAINT %2$I %s', m.place, m.name,
                                                pg_get_constraintdef(m.oid))
                  WHEN 'trigger' THEN format('DROP TRIGGER %I ON %s; %s', m.name, m.place, pg_get_triggerdef(m.oid))
                  WHEN 'default' THEN (SELECT format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %s', m.place, m.name,
                                                     pg_get_expr(x.adbin, x.adrelid)) FROM pg_attrdef x WHERE x.oid = m.oid)
                  WHEN 'index' THEN format('DROP INDEX %s; %s', m.oid::regclass, pg_get_indexdef(m.oid))
                  ELSE format('CREATE OR REPLACE VIEW %s AS %s', m.place, rtrim(pg_get_viewdef(m.relation), ';')) END) t (text)
)
