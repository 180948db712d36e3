"""The schema's way up and down: what a step leaves alone, and whom it keeps waiting."""

import json
import re
import subprocess
import threading
import time
from pathlib import Path

import psycopg
import pytest

from harness.daemon import clean_environment
from harness.ledger import Ledger
from harness.schema import ROOT
from harness.waiting import wait_for

FIRST = 1  # the version of the first release; jobqd_next has a step more
LONGEST_S = 5  # that an insert may take here; on a machine that has time for it, it is below 1 s


@pytest.fixture
def migrate(jobqd_next, request):
    """Starts a migration beside the test, by the next release: migrate(db, "up"). `said()` is its stderr so far."""
    running = []

    def start(db, *args, program=jobqd_next):
        process = subprocess.Popen([program, "migrate", *map(str, args), "--database", db.uri], env=clean_environment(),
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        lines = []
        reader = threading.Thread(target=lambda: lines.extend(iter(process.stderr.readline, "")))
        reader.start()
        process.said = lambda: "".join(lines)
        running.append((process, reader))
        return process

    yield start
    for process, reader in running:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join()
        process.stdout.close()
        process.stderr.close()


def version(db):
    return db.value("SELECT max(version) FROM jobq.schema_version")


def latest(cli):
    return json.loads(cli("version", "--json").stdout)["schema"]


def wait_said(process, pattern):
    return wait_for(lambda: re.search(pattern, process.said()), what=lambda: f"{pattern!r} on stderr:\n{process.said()}")


class Inserters:
    """Connections that enqueue one job after the other, each in its own way, for as long as they are let. Any error is
    raised by stop()."""

    WAYS = [
        lambda conn, kind: conn.execute("SELECT jobq.enqueue(%s, '{\"by\": \"enqueue\"}')", (kind,)).fetchone()[0],
        lambda conn, kind: conn.execute("INSERT INTO jobq.jobs (kind, args) VALUES (%s, '{\"by\": \"insert\"}') RETURNING id",
                                        (kind,)).fetchone()[0],
        lambda conn, kind: conn.execute("SELECT jobq.enqueue_many(jsonb_build_array(jsonb_build_object('kind', %s::text)))",
                                        (kind,)).fetchone()[0],
        lambda conn, kind: conn.execute("SELECT jobq.enqueue(kind => %s, priority => 3, max_attempts => 7)",
                                        (kind,)).fetchone()[0],
    ]

    def __init__(self, db, kind="work"):
        self.ids = [[] for _ in self.WAYS]
        self.longest_s = [0.0] * len(self.WAYS)
        self.faults = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(db, kind, nth)) for nth in range(len(self.WAYS))]
        for thread in self._threads:
            thread.start()

    def _run(self, db, kind, nth):
        try:
            with db.connect() as conn:
                while not self._over.wait(0.002):  # the daemon is to keep up
                    start = time.monotonic()
                    job = self.WAYS[nth](conn, kind)
                    self.longest_s[nth] = max(self.longest_s[nth], time.monotonic() - start)
                    self.ids[nth].append(job)
        except psycopg.Error as fault:
            self.faults.append(f"inserter {nth} after {len(self.ids[nth])} jobs: {fault}")

    def wait_for_more(self, each):
        """Until each connection has enqueued that many more jobs."""
        goals = [len(ids) + each for ids in self.ids]
        wait_for(lambda: self.faults or all(len(ids) >= goal for ids, goal in zip(self.ids, goals)),
                 what=lambda: f"{each} more jobs of each inserter: {[len(ids) for ids in self.ids]} of {goals}")
        assert self.faults == []

    def stop(self):
        """All ids that were confirmed."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        assert self.faults == []
        return [job for ids in self.ids for job in ids]


@pytest.fixture
def inserters():
    started = []

    def start(db, **options):
        started.append(Inserters(db, **options))
        return started[-1]
    yield start
    for each in started:
        each._over.set()


# ---- locks ----

def test_a_step_that_waits_for_a_lock_lets_others_pass(empty_db, cli, migrate, inserters):
    cli("migrate", "up", FIRST, db=empty_db)
    with empty_db.connect(autocommit=False, application_name="importer") as holder:
        holder.execute("INSERT INTO jobq.jobs (kind) VALUES ('kept')")
        crowd = inserters(empty_db)
        crowd.wait_for_more(10)
        up = migrate(empty_db, "up")
        said = wait_said(up, r"WARNING migrate: (step 0002 \(next\) is waiting for a lock that .*)\n")[1]
        assert re.fullmatch(
            r"step 0002 \(next\) is waiting for a lock that pid \d+ \(role admin, importer, idle in transaction, its transaction "
            r"began 2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\dZ, its query 2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\dZ\) holds: retrying "
            r"for up to \d\d s, letting other sessions through in between", said)
        assert f"pid {holder.info.backend_pid} " in said
        tries = "SELECT count(*) FROM jobq.schema_version"
        # The migration tries about once a second: several tries fall into this, and each lets these through.
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            crowd.wait_for_more(50)
        assert up.poll() is None and empty_db.value(tries) == FIRST
        holder.commit()
    assert up.wait(60) == 0, up.said()
    crowd.wait_for_more(10)
    ids = crowd.stop()
    print(f"the longest insert of {len(ids)} took {max(crowd.longest_s) * 1000:.0f} ms")
    assert up.said().count("WARNING migrate") == 1
    assert empty_db.value("SELECT count(*) FROM jobq.jobs") == len(ids) + 1
    assert max(crowd.longest_s) < LONGEST_S


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_step_that_gets_no_lock_in_time_does_nothing(empty_db, cli, jobqd_next, direction):
    cli("migrate", "up", FIRST if direction == "up" else FIRST + 1, db=empty_db, program=jobqd_next)
    before = version(empty_db)
    with empty_db.connect(autocommit=False) as holder:
        holder.execute("SELECT count(*) FROM jobq.jobs")
        done = cli("migrate", direction, "--lock-wait", "200ms", "--json", db=empty_db, code=75, program=jobqd_next)
        assert re.fullmatch(
            r"jobqd migrate: step 0002 \(next\) could not get its lock within 200 ms, because pid \d+ \(role admin, idle in transaction, "
            r"its transaction began [-0-9T:]+Z, its query [-0-9T:]+Z\) holds it; nothing was changed: end that "
            r"session, or wait longer with --lock-wait", done.stderr.splitlines()[-1])
        assert json.loads(done.stdout) == {"steps": []}
        assert version(empty_db) == before
    cli("migrate", direction, "--lock-wait", "0", db=empty_db, program=jobqd_next)


@pytest.mark.postgres(max_prepared_transactions="2")
def test_a_prepared_transaction_is_named(cluster, cli, jobqd_next):
    db = cluster.db
    with db.connect(autocommit=False) as conn:
        conn.execute("INSERT INTO jobq.jobs (kind) VALUES ('kept')")
        conn.execute("PREPARE TRANSACTION 'of the bank'")
    said = cli("migrate", "up", "--lock-wait", "100ms", db=db, code=75, program=jobqd_next).stderr
    assert "because the prepared transaction 'of the bank' holds it" in said
    db.query("COMMIT PREPARED 'of the bank'")
    cli("migrate", "up", db=db, program=jobqd_next)
    assert db.value("SELECT count(*) FROM jobq.jobs") == 1


def test_another_migration_is_waited_for(empty_db, cli, migrate):
    with empty_db.connect(autocommit=False) as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended('jobq migrate jobq', 0))")
        said = cli("migrate", "up", "--lock-wait", "500ms", db=empty_db, code=75).stderr
        assert f"the next step could not get its lock within 500 ms, because another migration, pid {other.info.backend_pid} (" in said
        up = migrate(empty_db, "up")
        wait_for(lambda: empty_db.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))
        other.rollback()
    assert up.wait(60) == 0


@pytest.mark.postgres(autovacuum_naptime="1s", autovacuum_vacuum_cost_limit="1")
def test_autovacuum_gives_way(cluster, cli, jobqd_next):
    """It would by itself only after deadlock_timeout, for which a step does not wait."""
    db = cluster.db
    db.query("ALTER TABLE jobq.jobs SET (autovacuum_vacuum_threshold = 0, autovacuum_vacuum_cost_delay = 100)")
    db.query("INSERT INTO jobq.jobs (kind) SELECT 'dead' FROM generate_series(1, 20000)")
    db.query("DELETE FROM jobq.jobs WHERE id % 2 = 0")
    wait_for(lambda: db.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'"
                              " AND query LIKE 'autovacuum: VACUUM%%jobq.jobs%%'"), what="autovacuum of jobq.jobs")
    said = cli("migrate", "up", "--lock-wait", "20s", db=db, program=jobqd_next).stderr
    assert re.search(r"is waiting for a lock that pid \d+ \(autovacuum worker, active, ", said)


# ---- the whole way ----

# What the statement makes depends on n alone. Triggers are off: a new job may not have these states.
FILL = f"""
SET session_replication_role = replica;
SELECT jobq._create_partitions((now() AT TIME ZONE 'UTC')::date - 6, 7);
INSERT INTO jobq.nodes (name, host, pid, pid_start, version, expires_at, queues)
VALUES ('gone', 'elsewhere', 1, 1, '0.1', now() - interval '1 day', '{{"default": {{"workers": 2}}}}');
INSERT INTO jobq.queues (name, paused, concurrency) VALUES ('mail', true, NULL), ('default', false, 7), ('zero', false, 0);
INSERT INTO jobq.crons (name, schedule, timezone, kind, args, queue, paused)
VALUES ('nightly', '0 3 * * *', 'Europe/Stockholm', 'report', '{{"daily": true}}', 'default', false),
       ('off', '@hourly', 'UTC', 'tick', '{{}}', 'mail', true);
INSERT INTO jobq.jobs (position, inserted_at, scheduled_at, attempted_at, attempted_by, state, attempt, max_attempts,
       timeout_ms, priority, queue, kind, args, meta, tags, errors, key, unique_key, retried_attempt)
SELECT CASE WHEN s IN ('available', 'executing') THEN jobq._next_position() END,
       now() - n * interval '1 second', now() + CASE WHEN s IN ('scheduled', 'retryable') THEN n ELSE -n END * interval '1 second',
       CASE WHEN s IN ('executing', 'retryable') THEN now() - interval '1 minute' END,
       CASE WHEN s IN ('executing', 'retryable') THEN 1 END, s::jobq.job_state,
       CASE WHEN s IN ('executing', 'retryable') THEN 1 + n % 5 ELSE 0 END, 6 + n % 15,
       CASE WHEN n % 3 = 0 THEN n END, n % 10, CASE n % 4 WHEN 0 THEN 'mail' ELSE 'default' END, 'kind ' || n % 17,
       jsonb_build_object('n', n, 'big', 123456789012345678, 'text', repeat('x', n % 50)), jsonb_build_object('trace', n),
       CASE WHEN n % 7 = 0 THEN ARRAY['red', 'tag ' || n % 3] ELSE '{{}}' END,
       CASE WHEN s = 'retryable' THEN jsonb_build_array(jsonb_build_object('attempt', 1, 'at', now(), 'kind', 'crash',
            'error', 'was killed', 'signal', 'SIGSEGV')) ELSE '[]' END,
       CASE WHEN n % 11 = 0 THEN 'key ' || n END, CASE WHEN n % 13 = 0 THEN 'unique ' || s || n END,
       CASE WHEN s = 'retryable' AND n % 2 = 0 THEN 1 END
  FROM generate_series(1, 12500) n, unnest(ARRAY['scheduled', 'available', 'executing', 'retryable', 'suspended']) s;
INSERT INTO jobq.finished_jobs (id, inserted_at, scheduled_at, attempted_at, attempted_by, finished_at, run_us, cpu_us,
       max_rss_kb, state, attempt, max_attempts, timeout_ms, priority, queue, kind, args, meta, tags, errors, key,
       unique_key, result)
SELECT nextval('jobq.jobs_id_seq'), now() - interval '7 days', now() - interval '7 days',
       now() - n % 6 * interval '1 day', 1, now() - n % 6 * interval '1 day', n, n / 2, 4000 + n, s::jobq.job_state,
       1 + n % 5, 20, NULL, n % 10, 'default', 'kind ' || n % 17, jsonb_build_object('n', n), '{{}}', '{{red}}',
       CASE WHEN s = 'completed' THEN '[]' ELSE jsonb_build_array(jsonb_build_object('attempt', 1, 'kind', 'error',
            'at', now(), 'error', 'no')) END, 'key ' || n, CASE WHEN n % 13 = 0 THEN 'unique ' || n END,
       CASE WHEN s = 'completed' AND n % 2 = 0 THEN jsonb_build_object('width', n) END
  FROM generate_series(1, 12500) n, unnest(ARRAY['completed', 'cancelled', 'discarded']) s;
INSERT INTO jobq._cancels (job_id, attempt, node_id)
SELECT id, attempt, attempted_by FROM jobq.jobs WHERE state = 'executing' AND id % 10 = 0;
RESET session_replication_role;
"""

TABLES = ["jobs", "finished_jobs", "nodes", "queues", "crons", "_cancels", "_leader"]


def keep_a_copy(db):
    """Of what the tables hold, with the columns that they have now."""
    db.query("CREATE SCHEMA before")
    for table in TABLES:
        db.query(f"CREATE TABLE before.{table} AS SELECT * FROM jobq.{table}")


def assert_as_before(db):
    for table in TABLES:
        columns = ", ".join(name for name, in db.query(
            "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0",
            (f"before.{table}",)))
        for one, other in [("before", "jobq"), ("jobq", "before")]:
            lost = db.query(f"SELECT {columns} FROM {one}.{table} EXCEPT ALL SELECT {columns} FROM {other}.{table} LIMIT 2")
            assert lost == [], f"{table}: in {one}, not in {other}"


@pytest.mark.limit(600)
def test_a_hundred_thousand_jobs_of_every_state_go_up_and_down_unchanged(empty_db, cli, jobqd_next):
    db = empty_db
    cli("migrate", "up", db=db)
    db.query(FILL)
    assert db.query("SELECT state::text, count(*) FROM jobq.all_jobs GROUP BY 1 ORDER BY 1") == sorted(
        [(state, 12500) for state in ("scheduled", "available", "executing", "retryable", "suspended", "completed",
                                      "cancelled", "discarded")])
    assert db.value("SELECT count(*) FROM pg_inherits WHERE inhparent = 'jobq._finished_completed'::regclass") >= 7
    keep_a_copy(db)
    marks = "SELECT (SELECT last_value FROM jobq.jobs_id_seq), (SELECT last_value FROM jobq.jobs_position_seq)"
    before = db.query(marks)
    for step in (["up"], ["down", FIRST], ["up"]):
        start = time.monotonic()
        cli("migrate", *step, db=db, program=jobqd_next)
        print(f"migrate {' '.join(map(str, step))}: {time.monotonic() - start:.2f} s")
        assert_as_before(db)
        assert db.query(marks) == before
    db.query("DROP SCHEMA before CASCADE")
    # And what is there is alive: it can be enqueued, cancelled, retried and completed.
    new = db.enqueue("new", unique_key="unique new")
    assert new > before[0][0]
    for state, done in [("scheduled", True), ("available", True), ("retryable", True), ("suspended", True),
                        ("executing", False)]:
        job = db.value("SELECT min(id) FROM jobq.jobs WHERE state = %s::jobq.job_state", (state,))
        assert db.value("SELECT jobq.cancel(%s)", (job,)) is done
    failed = db.value("SELECT min(id) FROM jobq.finished_jobs WHERE state = 'discarded'")
    assert db.value("SELECT jobq.retry(%s)", (failed,)) is True
    job, attempt = db.query("SELECT id, attempt FROM jobq.jobs WHERE state = 'executing' LIMIT 1")[0]
    db.query("SELECT jobq.complete(%s, %s)", (job, attempt))
    cli("migrate", "down", 0, "--force", db=db, program=jobqd_next)
    assert db.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'jobq'") == 0
    cli("migrate", "up", db=db)
    assert db.enqueue("new") == 1


# Everything that a step could change, a row each; the order of columns and of rights is left out.
STRUCTURE = """
SELECT 'column', c.relname || '.' || a.attname, concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attnotnull,
       a.attstorage, a.attidentity, pg_get_expr(d.adbin, d.adrelid), (SELECT array_agg(x::text ORDER BY x::text) FROM unnest(a.attacl) x))
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
 WHERE c.relnamespace = 'jobq'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v')
UNION ALL
SELECT 'relation', c.relname, concat_ws(' ', c.relkind, c.relpersistence, c.reloptions,
       (SELECT array_agg(x::text ORDER BY x::text) FROM unnest(c.relacl) x), CASE WHEN c.relkind = 'v' THEN pg_get_viewdef(c.oid) END,
       pg_get_expr(c.relpartbound, c.oid), CASE WHEN c.relkind IN ('i', 'I') THEN pg_get_indexdef(c.oid) END)
  FROM pg_class c WHERE c.relnamespace = 'jobq'::regnamespace
UNION ALL
SELECT 'constraint', conname, coalesce(conrelid::regclass::text, '') || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
 WHERE connamespace = 'jobq'::regnamespace
UNION ALL
SELECT 'function', p.oid::regprocedure::text, pg_get_functiondef(p.oid) || coalesce((SELECT array_agg(x::text ORDER BY x::text)::text FROM unnest(p.proacl) x), '')
  FROM pg_proc p WHERE p.pronamespace = 'jobq'::regnamespace
UNION ALL
SELECT 'trigger', t.tgname, pg_get_triggerdef(t.oid) || t.tgenabled::text FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
 WHERE c.relnamespace = 'jobq'::regnamespace AND NOT t.tgisinternal
UNION ALL
SELECT 'type', t.typname, array_agg(e.enumlabel ORDER BY e.enumsortorder)::text FROM pg_type t JOIN pg_enum e ON e.enumtypid = t.oid
 WHERE t.typnamespace = 'jobq'::regnamespace GROUP BY 1, 2
UNION ALL
SELECT 'statistics', s.stxname, pg_get_statisticsobjdef(s.oid) FROM pg_statistic_ext s WHERE s.stxnamespace = 'jobq'::regnamespace
"""


def test_each_step_down_undoes_its_step_up(empty_db, cli, jobqd_next):
    cli("migrate", "up", db=empty_db)
    before = set(empty_db.query(STRUCTURE))
    cli("migrate", "up", db=empty_db, program=jobqd_next)
    assert set(empty_db.query(STRUCTURE)) - before != set()
    cli("migrate", "down", FIRST, db=empty_db, program=jobqd_next)
    after = set(empty_db.query(STRUCTURE))
    assert sorted(before - after) == [] and sorted(after - before) == []
    cli("migrate", "down", 0, db=empty_db)
    left = ("SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend WHERE refclassid = 'pg_namespace'::regclass"
            " AND refobjid = (SELECT oid FROM pg_namespace WHERE nspname = 'jobq')")
    assert empty_db.query(left) == []
    cli("migrate", "up", db=empty_db)
    assert set(empty_db.query(STRUCTURE)) == before


def test_the_body_of_each_function_is_valid(empty_db, cli, jobqd_next):
    """A step makes functions before what they name, so the server has not looked into them."""
    cli("migrate", "up", db=empty_db, program=jobqd_next)
    texts = empty_db.query("SELECT p.oid::regprocedure::text, pg_get_functiondef(p.oid) FROM pg_proc p"
                           " WHERE p.pronamespace = 'jobq'::regnamespace ORDER BY 1")
    assert len(texts) > 100
    faults = []
    with empty_db.connect() as conn:
        for name, text in texts:
            try:
                conn.execute(text)
            except psycopg.Error as fault:
                faults.append(f"{name}: {fault}")
    assert faults == []
    with empty_db.connect() as conn, pytest.raises(psycopg.Error):
        conn.execute("CREATE FUNCTION jobq.wrong() RETURNS int LANGUAGE sql AS 'SELECT no_such_column FROM jobq.jobs'")


def test_each_constraint_that_is_named_is_there(db):
    """plpgsql looks for it only when it comes that way."""
    files = [file for folder in ("migrations", "jobqd/sql") for file in (ROOT / folder).rglob("*.sql")]
    named = {name for file in files for name in re.findall(r"ON CONSTRAINT (\w+)", file.read_text())}
    assert named and named - {name for name, in db.query(
        "SELECT conname::text FROM pg_constraint WHERE connamespace = 'jobq'::regnamespace")} == set()


# ---- what says the version ----

def test_version_goes_along_with_each_step(empty_db, cli, jobqd_next):
    for way, step in [("up", 1), ("up", 2), ("down", 1)]:
        cli("migrate", way, step, db=empty_db, program=jobqd_next)
        assert empty_db.value("SELECT jobq.version()") == step
        assert empty_db.query("SELECT version FROM jobq.schema_version ORDER BY 1") == [(n,) for n in range(1, step + 1)]
    cli("migrate", "down", 0, db=empty_db)
    assert empty_db.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'jobq'") == 0


@pytest.fixture
def restored(db, empty_db):
    """restored(db, "--schema-only"): what pg_dump wrote of it, restored in a database of its own. A server that is newer
    than Debian's pg_dump is not dumped: the database is made like a dump without data, or without rights, would be."""
    def schema_only(source):
        tables = [name for name, in source.query("SELECT relname FROM pg_class WHERE relnamespace = 'jobq'::regnamespace"
                                                 " AND relkind IN ('r', 'p')")]
        source.query("TRUNCATE " + ", ".join(f"jobq.{name}" for name in tables))
        return source

    def restore(source, *options):
        program = max(Path("/usr/lib/postgresql").glob("*/bin/pg_dump"), key=lambda path: int(path.parts[-3]))
        if source.value("SELECT current_setting('server_version_num')::int / 10000") > int(program.parts[-3]):
            assert options == ("--schema-only",)
            return schema_only(source)
        dump = subprocess.run([program, "-n", "jobq", *options, "-d", source.conninfo], check=True, capture_output=True).stdout
        subprocess.run([program.with_name("psql"), "-qX", "-v", "ON_ERROR_STOP=1", "-d", empty_db.conninfo], input=dump,
                       check=True, capture_output=True)
        return empty_db
    return restore


def test_a_dump_of_the_schema_alone_keeps_the_version(db, restored, cli, jobqd, programs):
    """As in the structure.sql of a Rails application."""
    db.enqueue("lost")
    copy = restored(db, "--schema-only")
    assert copy.query("SELECT * FROM jobq.schema_version") == []
    status = cli("migrate", "status", db=copy).stdout
    assert f"schema jobq has version {latest(cli)}, this jobqd needs {latest(cli)}\n" in status
    assert status.count("applied, at an unknown time\n") == latest(cli)
    steps = json.loads(cli("migrate", "status", "--json", db=copy).stdout)["migrations"]
    assert [(step["applied"], step["applied_at"]) for step in steps] == [(True, None)] * latest(cli)
    node = jobqd(copy, {"default": {"command": programs("noop_worker")}})
    copy.enqueue("noop")
    copy.wait_for_states({"completed": 1})
    node.stop()
    assert "nothing to do" in cli("migrate", "up", db=copy).stdout
    assert copy.query("SELECT version FROM jobq.schema_version ORDER BY 1") == [(n,) for n in range(1, latest(cli) + 1)]
    assert "not kept" not in cli("migrate", "status", db=copy).stdout


def test_a_dump_of_an_older_schema_alone_goes_up(db, restored, cli, jobqd_next):
    copy = restored(db, "--schema-only")
    assert re.findall(r"^(\d+) ", cli("migrate", "up", db=copy, program=jobqd_next).stdout, re.M) == [f"{FIRST + 1:04}"]
    assert copy.value("SELECT jobq.version()") == version(copy) == FIRST + 1
    assert copy.query("SELECT version FROM jobq.schema_version ORDER BY 1") == [(FIRST,), (FIRST + 1,)]
    assert copy.enqueue("new")


def test_a_schema_that_nothing_tells_the_version_of(db, cli):
    """As a dump of the schema alone left it before there was a version()."""
    db.query("DROP FUNCTION jobq.version()")
    assert "nothing to do" in cli("migrate", "up", db=db).stdout, "the history tells it"
    db.query("DROP FUNCTION jobq.version(); TRUNCATE jobq.schema_version")
    for command in (["migrate", "up"], ["migrate", "status"], ["migrate", "down"], ["jobs"]):
        said = cli(*command, db=db, code=78).stderr
        assert "schema jobq has jobq's tables, but its version is unknown" in said
    way_on = re.search("INSERT INTO .*", said)[0]
    db.query(way_on.replace("(N,", f"({latest(cli)},"))
    assert "nothing to do" in cli("migrate", "up", db=db).stdout
    assert db.value("SELECT jobq.version()") == latest(cli) and version(db) == latest(cli)


def test_a_schema_that_is_there_needs_no_right_on_the_database(postgres, empty_db, cli):
    owner = f"owner_{empty_db.name}"
    empty_db.query(f"CREATE ROLE {owner} LOGIN")
    empty_db.query(f"CREATE SCHEMA jobq AUTHORIZATION {owner}")
    as_owner = ["--database", empty_db.uri.replace("//admin@", f"//{owner}@")]
    try:
        cli("migrate", "up", *as_owner)
        cli("migrate", "down", 0, *as_owner)
        assert empty_db.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'jobq'") == 1, "it could not be made again"
        with empty_db.connect(user=owner) as conn:
            conn.execute(re.sub(r"^\\set .*$", "", cli("migrate", "print").stdout, flags=re.M))
            assert conn.execute("SELECT jobq.enqueue('a'), jobq.version()").fetchone() == (1, latest(cli))
    finally:
        empty_db.query(f"DROP OWNED BY {owner} CASCADE")
        empty_db.query(f"DROP ROLE {owner}")


# ---- from the first release, while it runs ----

@pytest.mark.untrapped
@pytest.mark.once
@pytest.mark.limit(600)
def test_an_upgrade_beneath_the_first_release_loses_nothing(jobqd_next, empty_db, cli, jobqd, migrate, inserters, programs, tmp_path):
    """It runs jobs all the while, applications enqueue them, and one of them keeps a transaction open."""
    db = empty_db
    cli("migrate", "up", db=db)
    assert version(db) == FIRST
    ledger = Ledger(tmp_path / "ledger")
    queue = {"default": {"command": ledger.command(programs("ledger_worker")), "concurrency": 2}}
    old = jobqd(db, queue, lease="30s")
    crowd = inserters(db)
    crowd.wait_for_more(20)
    with db.connect(autocommit=False) as holder:
        kept = holder.execute("SELECT jobq.enqueue('work')").fetchone()[0]
        gone = db.enqueue("work", scheduled_at="2100-01-01")
        db.query("SELECT jobq.cancel(%s)", (gone,))
        up = migrate(db, "up")
        wait_said(up, "is waiting for a lock")
        crowd.wait_for_more(200)
        assert up.poll() is None
        holder.commit()
    assert up.wait(60) == 0, up.said()
    assert version(db) > FIRST
    crowd.wait_for_more(50)
    ids = crowd.stop() + [kept]
    soon = db.enqueue("work", scheduled_at=db.value("SELECT now() + interval '1 second'"))
    ids.append(soon)
    db.wait_for_states({"completed": len(ids), "cancelled": 1}, timeout=120)
    print(f"the longest insert of {len(ids)} took {max(crowd.longest_s) * 1000:.0f} ms")
    assert max(crowd.longest_s) < LONGEST_S
    assert sorted(job for job, in db.query("SELECT id FROM jobq.finished_jobs WHERE state = 'completed'")) == sorted(ids)
    runs = ledger.read().by_job()
    assert {job: len(of_job) for job, of_job in runs.items()} == {job: 1 for job in ids}
    assert not re.search(r"ERROR", old.log())

    # The new one takes over where the old one was.
    assert old.stop() == 0
    jobqd(db, queue, program=jobqd_next)
    db.enqueue("work")
    db.wait_for_states({"completed": len(ids) + 1, "cancelled": 1})


# ---- from before the first release ----

UNRELEASED = """
CREATE SCHEMA jobq;
CREATE TABLE jobq.schema_version (version int PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());
CREATE FUNCTION jobq.next_position() RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint';
CREATE TABLE jobq.jobs (id bigint PRIMARY KEY, kind text);
INSERT INTO jobq.jobs VALUES (1, 'kept');
INSERT INTO jobq.schema_version SELECT n, 'step' FROM generate_series(1, {version}) n;
"""


@pytest.mark.parametrize("version", [1, 5, 13])
@pytest.mark.parametrize("says", [True, False], ids=["version()", "history"])
def test_a_schema_from_before_the_first_release_is_refused_in_words(empty_db, cli, jobqd, version, says):
    empty_db.query(UNRELEASED.format(version=version))
    if says:
        empty_db.query(f"CREATE FUNCTION jobq.version() RETURNS int LANGUAGE sql AS 'SELECT {version}'")
    for command in (["migrate", "up"], ["migrate", "down", "0", "--force"], ["migrate", "status"], ["migrate", "grant"], ["jobs"],
                    ["enqueue", "k"]):
        said = cli(*command, db=empty_db, code=78).stderr
        assert ("schema jobq was made by a jobq from before its first release: this jobqd can neither migrate nor drop it. "
                "Save what you need from it (SELECT ... FROM jobq.all_jobs), then run DROP SCHEMA \"jobq\" CASCADE and "
                "`jobqd migrate up`; or keep it and use another schema with --schema") in said, command
    assert re.search("ERROR jobqd: schema jobq (was made by a jobq from before its first release|has no function version)",
                     cli("run", "--node", "n", db=empty_db, code=69).stderr)
    assert empty_db.query("SELECT id, kind FROM jobq.jobs") == [(1, "kept")]
    cli("migrate", "up", "--schema", "mine", db=empty_db)
    empty_db.query('DROP SCHEMA "jobq" CASCADE')
    cli("migrate", "up", db=empty_db)
    assert empty_db.enqueue("new") == 1
