-- What makes the schema another's than ours: `strangers`, with what to do about each. Ours is a schema that belongs to the
-- current role, or to one that it was made a member of (a superuser is no member of all: another's schema is no more
-- his own for that), in which no other role may create anything, and all that is in it belongs to its owner. Empty
-- where the schema is not there. Only the catalogs are read: nothing in the schema is called. RECURSIVE. Who made the role of
-- another has its grants to give, and need not be what that is.
me AS (
    SELECT r.oid, r.rolsuper, r.rolname FROM pg_roles r WHERE r.rolname = current_user
), memberships AS (
    -- Before PostgreSQL 16 each of them lets its member be the role.
    SELECT m.roleid, m.member FROM pg_auth_members m
     WHERE coalesce((to_jsonb(m) ->> 'set_option')::boolean OR (to_jsonb(m) ->> 'inherit_option')::boolean, true)
), mine (oid) AS (
    SELECT oid FROM me
    UNION
    SELECT m.roleid FROM mine JOIN memberships m ON m.member = mine.oid
), place AS (
    SELECT n.oid, n.nspname, n.nspacl, n.nspowner, d.datdba,
           CASE WHEN pg_get_userbyid(n.nspowner) = 'pg_database_owner' THEN d.datdba ELSE n.nspowner END AS holder,
           (SELECT j.relowner FROM pg_class j
             WHERE j.relnamespace = n.oid AND j.relname = 'jobs' AND j.relkind = 'r'
               AND (EXISTS (SELECT FROM pg_class v WHERE v.relnamespace = n.oid AND v.relname = 'schema_version')
                    OR EXISTS (SELECT FROM pg_proc v WHERE v.pronamespace = n.oid AND v.proname = 'version'))) AS maker
      FROM pg_namespace n, pg_database d
     WHERE n.nspname = '@channel@' AND d.datname = current_database()
), owned AS (
    SELECT p.*, coalesce(p.maker, p.holder) AS owner,
           coalesce(p.maker, p.holder) IN (SELECT oid FROM mine)
           OR EXISTS (SELECT FROM me JOIN pg_roles o ON o.oid = coalesce(p.maker, p.holder) WHERE me.rolsuper AND o.rolsuper) AS ours
      FROM place p
), allies (oid) AS (
    -- Who may do as the owner does, and whoever may do more.
    SELECT owner FROM owned UNION SELECT datdba FROM owned UNION SELECT r.oid FROM pg_roles r WHERE r.rolsuper
    UNION
    SELECT m.member FROM allies JOIN memberships m ON m.roleid = allies.oid
), things (class, oid, owner) AS (
    SELECT 'pg_class'::regclass, c.oid, c.relowner FROM pg_class c, place
     WHERE c.relnamespace = place.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c')
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                          AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') AND c.relkind = 'S')
    UNION ALL
    SELECT 'pg_proc'::regclass, oid, proowner FROM pg_proc WHERE pronamespace = (SELECT oid FROM place)
    UNION ALL
    SELECT 'pg_type'::regclass, oid, typowner FROM pg_type
     WHERE typnamespace = (SELECT oid FROM place) AND typrelid = 0 AND typcategory <> 'A' AND typtype <> 'm'
    UNION ALL
    SELECT 'pg_operator'::regclass, oid, oprowner FROM pg_operator WHERE oprnamespace = (SELECT oid FROM place)
    UNION ALL
    SELECT 'pg_opclass'::regclass, oid, opcowner FROM pg_opclass WHERE opcnamespace = (SELECT oid FROM place)
    UNION ALL
    SELECT 'pg_opfamily'::regclass, oid, opfowner FROM pg_opfamily WHERE opfnamespace = (SELECT oid FROM place)
    UNION ALL
    SELECT 'pg_collation'::regclass, oid, collowner FROM pg_collation WHERE collnamespace = (SELECT oid FROM place)
    UNION ALL
    SELECT 'pg_conversion'::regclass, oid, conowner FROM pg_conversion WHERE connamespace = (SELECT oid FROM place)
    UNION ALL
    SELECT 'pg_statistic_ext'::regclass, oid, stxowner FROM pg_statistic_ext WHERE stxnamespace = (SELECT oid FROM place)
    UNION ALL
    SELECT 'pg_ts_config'::regclass, oid, cfgowner FROM pg_ts_config WHERE cfgnamespace = (SELECT oid FROM place)
    UNION ALL
    SELECT 'pg_ts_dict'::regclass, oid, dictowner FROM pg_ts_dict WHERE dictnamespace = (SELECT oid FROM place)
), strangers (nth, found, remedy, is_grant, who) AS (
    SELECT 1, format('schema %s belongs to role %s, but jobq''s tables in it belong to role %s: the schema''s owner may replace jobq''s '
                     'functions with its own', o.nspname, pg_get_userbyid(o.holder), pg_get_userbyid(o.owner)),
           format('ALTER SCHEMA %I OWNER TO %I', o.nspname, pg_get_userbyid(o.owner)), false, o.holder
      FROM owned o WHERE o.holder <> o.owner
    UNION ALL
    SELECT 2, format('schema %s belongs to role %s, and role %s is not a member of that role', o.nspname, pg_get_userbyid(o.owner), me.rolname),
           CASE WHEN o.maker IS NULL THEN format('ALTER SCHEMA %I OWNER TO %I', o.nspname, me.rolname)
                ELSE format('connect as role %I, if it is the rightful owner of the schema', pg_get_userbyid(o.owner)) END, false, o.owner
      FROM owned o, me WHERE NOT o.ours
    UNION ALL
    SELECT 3, format('%s may create objects in schema %s', coalesce('role ' || r.rolname, 'every role'), o.nspname),
           format('REVOKE CREATE ON SCHEMA %I FROM %s', o.nspname, coalesce(quote_ident(r.rolname), 'PUBLIC')),
           e.grantee = 0 OR coalesce(r.rolname ~ '^jobq_(enqueuer|worker|viewer|operator|daemon)$', false), e.grantee
      FROM owned o, aclexplode(o.nspacl) e LEFT JOIN pg_roles r ON r.oid = e.grantee
     WHERE e.privilege_type = 'CREATE' AND e.grantee NOT IN (o.nspowner, o.holder, o.owner) AND NOT coalesce(r.rolsuper, false)
    UNION ALL
    -- In the order in which they can be dropped.
    SELECT CASE t.class WHEN 'pg_opclass'::regclass THEN 4 WHEN 'pg_opfamily'::regclass THEN 5 WHEN 'pg_operator'::regclass THEN 6
                        WHEN 'pg_proc'::regclass THEN 7 WHEN 'pg_type'::regclass THEN 8 ELSE 9 END,
           format('%s %s belongs to role %s, not to the owner of jobq''s tables, role %s', i.type, i.identity,
                     pg_get_userbyid(t.owner), pg_get_userbyid(o.owner)),
           CASE WHEN i.type IN ('table', 'view', 'materialized view', 'foreign table', 'sequence')
                THEN format('ALTER %s %s OWNER TO %I', upper(i.type), i.identity, pg_get_userbyid(o.owner))
                ELSE format('DROP %s %s', CASE i.type WHEN 'composite type' THEN 'TYPE' WHEN 'statistics object' THEN 'STATISTICS'
                                                      ELSE upper(i.type) END, i.identity) END, false, t.owner
      FROM owned o, things t
     CROSS JOIN LATERAL pg_identify_object(t.class, t.oid, 0) i
     WHERE t.owner <> o.owner
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = t.class AND d.objid = t.oid AND d.deptype = 'e')
)
