"""Nobody's function, operator, type or table is put under ours: what is called is meant, whatever stands on the search path.

First the attack, as whoever may create something in public would do it; then all that jobq does with a trap on everybody's path
(harness/trap.py). The whole suite runs in the trap with JOBQ_TEST_TRAP=1."""

import json
import re
import subprocess
import uuid

import psycopg
import pytest

from harness import schema, story
from harness.daemon import clean_environment
from harness.pg import Cluster, in_memory
from harness.schema import ROOT
from harness.waiting import wait_for

pytestmark = pytest.mark.once  # what is tried here is the database's

# ---- the attack ----

# The operators that jobq uses, each for the pairs of types that pg_catalog takes only by converting one: these match better, and
# are called wherever public is on the path. So do functions of these names.
PLANT = r"""
DO $do$
DECLARE
    what record;
    nth int := 0;
BEGIN
    FOR what IN
        SELECT o.name, l.type AS l, r.type AS r, coalesce(o.result, CASE WHEN 'timestamptz' IN (l.type, r.type) THEN 'timestamptz'
                  WHEN 'interval' IN (l.type, r.type) THEN 'interval' WHEN 'numeric' IN (l.type, r.type) THEN 'numeric' ELSE l.type END) AS result
          FROM (VALUES ('*', NULL), ('+', NULL), ('-', NULL), ('/', NULL), ('=', 'boolean'), ('<>', 'boolean'), ('<', 'boolean'),
                       ('<=', 'boolean'), ('>', 'boolean'), ('>=', 'boolean'), ('||', 'text'), ('->>', 'text')) o (name, result),
               unnest('{bigint,integer,smallint,numeric,double precision,interval,timestamptz,text,jsonb,name}'::text[]) l (type),
               unnest('{bigint,integer,smallint,numeric,double precision,interval,timestamptz,text,jsonb,name}'::text[]) r (type)
         WHERE to_regoperator(format('pg_catalog.%s(%s,%s)', o.name, l.type, r.type)) IS NULL
    LOOP
        nth := nth + 1;
        EXECUTE format('CREATE FUNCTION public.planted_%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS %L', nth, what.l, what.r, what.result,
                       format('BEGIN RAISE LOG %L, current_user; RETURN NULL; END',
                              format('planted: %s %s %s as %%', what.l, what.name, what.r)));
        EXECUTE format('CREATE OPERATOR public.%s (FUNCTION = public.planted_%s, LEFTARG = %s, RIGHTARG = %s)', what.name, nth, what.l, what.r);
    END LOOP;
    FOR what IN
        SELECT * FROM (VALUES ('format', 'text, bigint'), ('format', 'text, text'), ('format', 'text, text, bigint'),
                              ('concat_ws', 'text, text, text'), ('jsonb_build_object', 'text, text'), ('date_trunc', 'text, text'),
                              ('to_json', 'text'), ('round', 'double precision, integer'), ('to_char', 'text, text')) f (name, args)
    LOOP
        EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS text LANGUAGE plpgsql AS %L', what.name, what.args,
                       format('BEGIN RAISE LOG %L, current_user; RETURN NULL; END', format('planted: %s as %%', what.name)));
    END LOOP;
END
$do$
"""


def plant(conn, mallory):
    """As `mallory`, who may create in public."""
    conn.execute(f"GRANT CREATE, USAGE ON SCHEMA public TO {mallory}")
    conn.execute(f"SET ROLE {mallory}")
    conn.execute(PLANT)
    conn.execute("RESET ROLE")


@pytest.fixture
def mallory(postgres, db):
    """A role of the application's, which may enqueue and create in public, and has planted what it could."""
    name = f"mallory_{uuid.uuid4().hex[:8]}"
    with db.connect() as conn:
        conn.execute(f"CREATE ROLE {name} LOGIN IN ROLE jobq_enqueuer")
        plant(conn, name)
    start = postgres.log_size()
    yield name
    with db.connect() as conn:
        conn.execute(f"DROP OWNED BY {name}")
        conn.execute(f"DROP ROLE {name}")
    calls = re.findall("planted: .*", postgres.log(start))
    assert calls == [], "\n".join(sorted(set(calls)))


def test_the_plant_is_called_where_it_can_be(postgres, db):
    """Or the tests below could not fail."""
    with db.connect() as conn:
        name = f"mallory_{uuid.uuid4().hex[:8]}"
        conn.execute(f"CREATE ROLE {name}")
        plant(conn, name)
        start = postgres.log_size()
        conn.execute("SELECT 5.0 * 3")
        conn.execute(f"DROP OWNED BY {name}")
        conn.execute(f"DROP ROLE {name}")
    assert "planted: numeric * integer as admin" in postgres.log(start)


@pytest.mark.limit(600)
def test_the_attack_on_a_daemon(db, mallory, jobqd, programs, cli, tmp_path):
    with db.connect() as app:
        story.life(db, db.uri, app, jobqd, programs, cli, tmp_path)


def test_the_attack_on_doctor_as_superuser(db, mallory, cli):
    assert db.value("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
    db.enqueue("k")
    cli("doctor", db=db, code=None)


LIBRARY = """
import datetime, sys
import psycopg
import jobq
from jobq import NewJob
second = datetime.timedelta(seconds=1)
with psycopg.connect(sys.argv[1]) as conn, jobq.Client(sys.argv[1]) as client:
    for where in (conn, None):
        options = dict(connection=where)
        many = [NewJob("k", {"n": n}, schedule_in=second * n, expires_in=second * (n + 60), tags=["a"], priority=1) for n in range(3)]
        made = client.enqueue_many(many, **options)
        made += client.enqueue_many([NewJob("u", {"n": n}, unique=True, schedule_in=second) for n in range(3)], **options)
        made.append(client.enqueue("k", {}, schedule_in=second, expires_in=second * 9, **options))
        made.append(client.enqueue("k", {}, schedule_at=datetime.datetime.now(datetime.timezone.utc) + second, **options))
        assert client.get(made[-1].id, **options).state == "scheduled"
        assert client.cancel(made[0].id, **options) and client.retry(made[0].id, **options) and client.delete(made[0].id, **options)
        assert client.cancel_many(kind="u", **options) >= 1 and client.purge({"n": 1}, **options) >= 1
        conn.commit()
"""


def python(program, *args, **env):
    done = subprocess.run(["/usr/bin/python3", "-c", program, *args], capture_output=True, text=True, timeout=120, env=clean_environment(
        PYTHONPATH=str(ROOT / "bindings/python/src"), JOBQ_LIBRARY=str(schema.build_folder() / "libjobq/libjobq.so.0"), **env))
    assert done.returncode == 0, done.stderr


@pytest.mark.once  # the other tree's library needs its sanitizers' runtime in the program
def test_the_attack_on_an_application(db, mallory):
    """enqueue_many and the others, on its own connection and on the client's; by libjobq, and by SQL of the Python package."""
    python(LIBRARY, db.conninfo)
    python(LIBRARY.replace("import jobq\n", "import jobq._connections\njobq._connections.one_libpq = lambda: False\nimport jobq\n"), db.conninfo)


@pytest.mark.parametrize("printed", [False, True], ids=["up", "print"])
def test_the_attack_on_migrate_up(empty_db, cli, postgres, jobqd_next, printed):
    """An operator for a type of ours, which a step of later would put into a trigger for good."""
    db = empty_db
    name = f"mallory_{uuid.uuid4().hex[:8]}"
    cli("migrate", "up", db=db)
    with db.connect() as conn:
        conn.execute(f"CREATE ROLE {name} LOGIN IN ROLE jobq_enqueuer")
        conn.execute(f"GRANT CREATE, USAGE ON SCHEMA public TO {name}")
        conn.execute(f"SET ROLE {name}")
        conn.execute("CREATE FUNCTION public.differ(jobq.job_state, jobq.job_state) RETURNS boolean LANGUAGE plpgsql AS $$"
                     " BEGIN RAISE LOG 'planted: differ as %', current_user; RETURN true; END $$")
        conn.execute("CREATE OPERATOR public.<> (FUNCTION = public.differ, LEFTARG = jobq.job_state, RIGHTARG = jobq.job_state)")
        conn.execute("RESET ROLE")
    if printed:
        script = cli("migrate", "print", program=jobqd_next).stdout
        # Of a database that has the first step already, the rest of it.
        begin, rest = script.split("CREATE SCHEMA IF NOT EXISTS", 1)
        script = begin + rest[rest.index("-- A step as a later release"):]
        subprocess.run(["psql", "-qX", db.uri], input=script, text=True, check=True, capture_output=True)
    else:
        cli("migrate", "up", db=db, program=jobqd_next)
    assert db.value("SELECT jobq.version()") == 2
    start = postgres.log_size()
    with db.connect() as conn:
        conn.execute("INSERT INTO jobq.jobs (kind) VALUES ('k')")
        conn.execute(f"DROP OWNED BY {name}")  # would be refused if anything of ours needed the operator
        conn.execute(f"DROP ROLE {name}")
    assert "planted:" not in postgres.log(start)


# ---- the trap ----

@pytest.fixture(scope="module")
def trapped():
    """A server with the trap on everybody's path."""
    cluster = Cluster(trapped=True, where=in_memory()).start()
    template = cluster.create_database("jobq_template")
    schema.migrate(template)
    cluster.check_trap()
    yield cluster
    cluster.remove()


@pytest.fixture
def snared(trapped, request):
    """A migrated database there; at its end nothing of jobq's has fallen into the trap."""
    start = trapped.log_size()
    database = trapped.create_database(f"t_{uuid.uuid4().hex[:12]}", "jobq_template")
    request.node.jobq_logs = [("postgres log", lambda: trapped.log(start))]
    yield database
    database.drop()
    trapped.check_trap(start)


@pytest.fixture
def app(snared):
    """An application's connection, in the trap."""
    with psycopg.connect(snared.uri, autocommit=True, prepare_threshold=None) as conn:
        yield conn


@pytest.mark.parametrize("sql", ["SELECT 1 + 1", "SELECT 'a'::text", "SELECT count(*)", "SELECT format('%s', 1)", "SELECT 1 IN (2)",
                                 "SELECT relname FROM pg_class", "SELECT row_number() OVER ()", "SELECT string_agg('a', ',')",
                                 "SELECT * FROM generate_series(1, 2)", "SELECT NULLIF(1, 2)", "SELECT 1 BETWEEN 0 AND 2",
                                 "SELECT 'available'::jobq.job_state <> 'scheduled'", "SELECT now()", "SELECT '1'::regclass"])
def test_the_trap_is_one(trapped, sql):
    database = next(d for d in trapped.databases if d.name == "jobq_template")
    start = trapped.log_size()
    with psycopg.connect(database.uri, autocommit=True) as conn, pytest.raises(psycopg.Error):
        conn.execute(sql.encode())
    with pytest.raises(AssertionError):
        trapped.check_trap(start)


@pytest.mark.parametrize("name", story.CALLS)
def test_a_function_in_the_trap(snared, app, name):
    story.CALLS[name](snared, app)


def test_each_function_that_a_role_may_call_is_called(snared):
    assert story.not_called(snared) == set()


def test_functions_without_a_path_of_their_own(snared):
    """They are inlined where they are called, so their callers' path counts: those that others may call name schemas."""
    assert {name for name, in snared.query(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'jobq'::regnamespace"
        " AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false)")} == {
        "_has_expired", "_job_fault", "_json_is_no_int", "_json_job_fault", "_json_jobs", "_long_number", "_notify",  # of our functions alone
        "_next_position", "_default_attempts", "wait"}
    assert {name for name, in snared.query(
        "SELECT p.proname FROM pg_proc p, pg_roles r WHERE p.pronamespace = 'jobq'::regnamespace"
        " AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false)"
        " AND r.rolname = ANY (%s) AND has_function_privilege(r.oid, p.oid, 'EXECUTE')", (list(story.ROLES),))} == {
            "_next_position", "_default_attempts", "wait"}


@pytest.mark.limit(600)
def test_a_life_in_the_trap(snared, app, jobqd, programs, cli, tmp_path):
    story.life(snared, snared.uri, app, jobqd, programs, cli, tmp_path)


@pytest.mark.limit(600)
def test_commands_in_the_trap(snared, cli, jobqd, programs, tmp_path):
    node = jobqd(snared, {"default": {"command": programs("noop_worker")}, "mail": {"command": programs("noop_worker")}})
    snared.query("SELECT jobq.pause('mail')")
    wait_for(lambda: snared.value("SELECT count(*) FROM jobq._leader") == 1)
    said = json.loads(cli("doctor", "--json", "-c", node.conf, code=None).stdout)
    assert [f for f in said["findings"] if "could not" in f["found"]] == []
    assert node.stop() == 0
    story.command_all(cli, snared, snared.uri, tmp_path)


@pytest.mark.limit(600)
def test_behind_a_pooler_in_the_trap(snared, jobqd, programs, cli, tmp_path, pooler):
    """Where a session is not ours, each transaction says it."""
    uri = pooler(snared.cluster)(snared)
    with psycopg.connect(uri, autocommit=True, prepare_threshold=None) as app:
        story.life(snared, uri, app, jobqd, programs, cli, tmp_path)
    story.command_all(cli, snared, uri, tmp_path)


def test_migrations_in_the_trap(trapped, snared, cli, jobqd_next, tmp_path):
    latest = snared.value("SELECT max(version) FROM jobq.schema_version")
    cli("migrate", "up", db=snared, program=jobqd_next)
    for version in range(latest, -1, -1):
        cli("migrate", "down", version, db=snared, program=jobqd_next)
    for version in range(1, latest + 2):
        cli("migrate", "up", version, db=snared, program=jobqd_next)
    cli("migrate", "down", latest, db=snared, program=jobqd_next)
    cli("migrate", "down", "0", db=snared)
    # psql's own settings are the user's: this one's path is that of everybody.
    subprocess.run(["psql", "-qX", snared.uri], input=cli("migrate", "print").stdout, text=True, check=True, capture_output=True)
    assert snared.value("SELECT max(version) FROM jobq.schema_version") == latest
    with psycopg.connect(snared.uri, autocommit=True) as app:
        story.enqueue(snared, app)


@pytest.mark.once
def test_an_application_in_the_trap(snared, build, tmp_path):
    """All of libjobq by the consumer project's program, and the Python package, with libjobq and with SQL of its own."""
    program = str(tmp_path / "consumer")
    consumer = ROOT / "tests" / "consumer"
    flags = ["-I", str(ROOT / "include"), "-I", subprocess.check_output(["pg_config", "--includedir"], text=True).strip()]
    version = json.loads(subprocess.check_output([build / "jobqd" / "jobqd", "version", "--json"], text=True))["version"]
    subprocess.run(["c++", *flags, "-c", str(consumer / "plus.cpp"), "-o", str(tmp_path / "plus.o")], check=True)
    subprocess.run(["cc", *flags, f'-DPACKAGE_VERSION="{version}"', str(consumer / "main.c"), str(tmp_path / "plus.o"), "-o",
                    program, f"-L{build / 'libjobq'}", f"-Wl,-rpath,{build / 'libjobq'}", "-ljobq", "-lpq", "-lstdc++"], check=True)
    done = subprocess.run([program], env=clean_environment(JOBQ_TEST_DATABASE=snared.uri), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    python(LIBRARY, snared.conninfo)
    python(LIBRARY.replace("import jobq\n", "import jobq._connections\njobq._connections.one_libpq = lambda: False\nimport jobq\n"), snared.conninfo)


TESTING = """
import sys
import psycopg
import jobq, jobq.testing
@jobq.worker("k")
def k(n: int) -> int:
    if n == 3:
        raise jobq.Snooze(60)
    return 10 // n
with psycopg.connect(sys.argv[1]) as conn:
    client = jobq.Client(sys.argv[1])
    for n in range(4):
        client.enqueue("k", {"n": n}, connection=conn)
    jobq.testing.assert_enqueued("k", {"n": 1}, queue="default", priority=0, connection=conn)
    jobq.testing.refute_enqueued("k", {"n": 7}, connection=conn)
    assert jobq.testing.count_enqueued("k", connection=conn) == 4
    done = jobq.testing.drain(connection=conn)
    assert (done.completed, done.retryable, done.snoozed) == (2, 1, 1), done
"""


@pytest.mark.once
def test_tests_of_an_application_in_the_trap(snared):
    python(TESTING, snared.conninfo)


@pytest.mark.parametrize("what", [["drain", "--jobs", 200, "--workers", 1, "--with-limit"], ["limit", "--jobs", 200, "--batch", 64],
                                  ["latency", "--jobs", 5, "--pause-ms", 1], ["explain", "--jobs", 1000],
                                  ["enqueue", "--connections", 2, "--seconds", 1],
                                  ["wakeup", "--connections", 2, "--seconds", 1, "--rounds", 1],
                                  ["memory", "--jobs", 500, "--step", 250]], ids=lambda what: what[0])
def test_bench_in_the_trap(snared, cli, what):
    cli("bench", *what, "--json", "--database", snared.uri)
