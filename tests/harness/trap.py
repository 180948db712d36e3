"""A schema that stands first on the search path and holds a copy of everything in pg_catalog that SQL can call or name, each of
which raises `trap: NAME`. A statement that leaves it to the search path what its functions, operators, types and tables are
falls into it; and so would one that another role's function could be put under.

The path has pg_catalog second, since it would come before the trap if it were not named."""

import os
import re

WANTED = os.environ.get("JOBQ_TEST_TRAP") == "1"
PATH = "trap, pg_catalog, public"

# What a copy in another language than plpgsql raises: those have an argument that plpgsql does not take.
SPRUNG = re.compile(r"(?:trap: |cannot accept a value of type internal).*")

MAKE = r"""
CREATE SCHEMA trap;
GRANT USAGE ON SCHEMA trap TO PUBLIC;

CREATE FUNCTION trap._sprung(what text) RETURNS boolean LANGUAGE plpgsql STABLE SET search_path = pg_catalog AS $$
BEGIN
    RAISE LOG 'trap: %', what;  -- also where the error is caught
    RAISE EXCEPTION 'trap: %', what;
END
$$;

CREATE TABLE trap._skipped (what text, why text);

DO $do$
DECLARE
    f record;
    body text;
    made text;
    nth int := 0;
BEGIN
    -- Functions and window functions. What has an argument of type internal cannot be called from SQL.
    FOR f IN
        SELECT p.oid, p.proname, p.prokind, pg_get_function_arguments(p.oid) AS args, pg_get_function_result(p.oid) AS result,
               (SELECT string_agg(concat_ws(' ', CASE m.mode WHEN 'o' THEN 'OUT' WHEN 'b' THEN 'INOUT' WHEN 'v' THEN 'VARIADIC' END,
                                            '_' || m.nth, format_type(m.type, NULL)), ', ' ORDER BY m.nth)
                  FROM unnest(p.proallargtypes, p.proargmodes) WITH ORDINALITY m (type, mode, nth)
                 WHERE m.mode <> 't') AS renamed
          FROM pg_proc p
         WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind IN ('f', 'w')
           AND NOT 'internal'::regtype = ANY (p.proargtypes)
           AND p.prorettype <> ALL ('{internal,trigger,event_trigger,language_handler,fdw_handler,index_am_handler,tsm_handler,'
                                    'table_am_handler}'::regtype[])
         ORDER BY p.oid
    LOOP
        body := format('BEGIN RAISE LOG %1$L; RAISE EXCEPTION %1$L; END',
                       'trap: function ' || replace(f.oid::regprocedure::text, '%', '%%'));
        body := CASE WHEN f.prokind = 'w' THEN $$WINDOW LANGUAGE internal AS 'internal_in'$$
                     WHEN f.args ~ '"any"|cstring' OR f.result ~ 'cstring' THEN $$LANGUAGE internal AS 'internal_in'$$
                     ELSE format('LANGUAGE plpgsql AS %L', body) END;
        BEGIN
            BEGIN
                EXECUTE format('CREATE FUNCTION trap.%I(%s) RETURNS %s %s', f.proname, f.args, f.result, body);
            EXCEPTION WHEN invalid_function_definition THEN  -- an OUT parameter is called like an IN parameter
                EXECUTE format('CREATE FUNCTION trap.%I(%s) RETURNS %s %s', f.proname, coalesce(f.renamed, f.args), f.result, body);
            END;
        EXCEPTION WHEN OTHERS THEN
            INSERT INTO trap._skipped VALUES (f.oid::regprocedure::text, SQLERRM);
        END;
    END LOOP;

    -- Aggregates, by a final function that raises, which is called also where there are no rows.
    FOR f IN
        SELECT p.oid, p.proname, a.aggkind, p.pronargs, pg_get_function_identity_arguments(p.oid) AS args,
               pg_get_function_result(p.oid) AS result, a.aggnumdirectargs,
               (SELECT coalesce(string_agg(format_type(t.type, NULL), ', ' ORDER BY t.nth), '')
                  FROM unnest(p.proargtypes) WITH ORDINALITY t (type, nth)) AS types,
               (SELECT coalesce(string_agg(format_type(t.type, NULL), ', ' ORDER BY t.nth), '')
                  FROM unnest(p.proargtypes) WITH ORDINALITY t (type, nth)
                 WHERE a.aggkind = 'n' OR t.nth > a.aggnumdirectargs) AS passed
          FROM pg_proc p JOIN pg_aggregate a ON a.aggfnoid = p.oid
         WHERE p.pronamespace = 'pg_catalog'::regnamespace
         ORDER BY p.oid
    LOOP
        nth := nth + 1;
        body := format('BEGIN RAISE LOG %1$L; RAISE EXCEPTION %1$L; END', 'trap: aggregate ' || f.oid::regprocedure::text);
        made := CASE WHEN f.types ~ '"any"' THEN $$LANGUAGE internal AS 'internal_in'$$
                     ELSE format('LANGUAGE plpgsql AS %L', body) END;
        BEGIN
            EXECUTE format('CREATE FUNCTION trap._next%s(%s) RETURNS int %s', nth, concat_ws(', ', 'int', nullif(f.passed, '')),
                           made);
            EXECUTE format('CREATE FUNCTION trap._last%s(%s) RETURNS %s %s', nth, concat_ws(', ', 'int', nullif(f.types, '')),
                           f.result, made);
            EXECUTE format('CREATE AGGREGATE trap.%I(%s) (SFUNC = trap._next%s, STYPE = int, FINALFUNC = trap._last%s, '
                           'FINALFUNC_EXTRA)', f.proname, CASE WHEN f.args = '' THEN '*' ELSE f.args END, nth, nth);
        EXCEPTION WHEN OTHERS THEN
            INSERT INTO trap._skipped VALUES (f.oid::regprocedure::text, SQLERRM);
        END;
    END LOOP;

    FOR f IN
        SELECT o.oid, o.oprname, p.proname, format_type(nullif(o.oprleft, 0), NULL) AS l, format_type(nullif(o.oprright, 0), NULL) AS r
          FROM pg_operator o JOIN pg_proc p ON p.oid = o.oprcode
         WHERE o.oprnamespace = 'pg_catalog'::regnamespace
         ORDER BY o.oid
    LOOP
        nth := nth + 1;
        body := format('BEGIN RAISE LOG %1$L; RAISE EXCEPTION %1$L; END',
                       'trap: operator ' || replace(f.oid::regoperator::text, '%', '%%'));
        BEGIN
            EXECUTE format('CREATE FUNCTION trap._op%s(%s) RETURNS %s LANGUAGE plpgsql AS %L', nth, concat_ws(', ', f.l, f.r),
                           (SELECT format_type(o.oprresult, NULL) FROM pg_operator o WHERE o.oid = f.oid), body);
            EXECUTE format('CREATE OPERATOR trap.%s (FUNCTION = trap._op%s%s%s)', f.oprname, nth, ', LEFTARG = ' || f.l,
                           ', RIGHTARG = ' || f.r);
        EXCEPTION WHEN OTHERS THEN
            INSERT INTO trap._skipped VALUES (f.oid::regoperator::text, SQLERRM);
        END;
    END LOOP;

    FOR f IN
        SELECT t.typname, format_type(t.oid, NULL) AS type
          FROM pg_type t
         WHERE t.typnamespace = 'pg_catalog'::regnamespace AND t.typtype IN ('b', 'd', 'e', 'r', 'm') AND t.typelem = 0
         ORDER BY t.oid
    LOOP
        BEGIN
            EXECUTE format('CREATE DOMAIN trap.%I AS %s CHECK (trap._sprung(%L))', f.typname, f.type, 'type ' || f.type);
        EXCEPTION WHEN OTHERS THEN
            INSERT INTO trap._skipped VALUES ('type ' || f.type, SQLERRM);
        END;
    END LOOP;

    FOR f IN
        SELECT c.relname, string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) AS columns
          FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type t ON t.oid = a.atttypid
         WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind IN ('r', 'v') AND a.attnum > 0 AND t.typtype <> 'p'
         GROUP BY c.oid, c.relname ORDER BY c.oid
    LOOP
        BEGIN
            EXECUTE format('CREATE VIEW trap.%1$I AS SELECT %2$s FROM pg_catalog.%1$I WHERE trap._sprung(%3$L)', f.relname,
                           f.columns, 'relation ' || f.relname);
        EXCEPTION WHEN OTHERS THEN
            INSERT INTO trap._skipped VALUES ('relation ' || f.relname, SQLERRM);
        END;
    END LOOP;
END
$do$;
"""


def lay(conn):
    """Makes the schema in the connection's database, of which others are copied then."""
    with conn.transaction():
        conn.execute("SET LOCAL search_path = pg_catalog")
        conn.execute(MAKE)


def sprung(log):
    """What of a server's log says that the trap was entered."""
    return SPRUNG.findall(log)
