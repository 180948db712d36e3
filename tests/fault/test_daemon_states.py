"""The daemon in every state it can be in: stopped while starting, while the database is away, while it has lost its
lease; its own tables changed under it. From each state it must move on, and no job may stay behind."""

import contextlib
import datetime
import os
import re
import shutil
import signal
import urllib.parse

import psycopg
import pytest

from faultproxy import FaultProxy
from harness import schema
from harness.pg import SUPERUSER
from harness.waiting import wait_for


@pytest.fixture
def worker(programs):
    return {"default": {"command": programs("fault_worker"), "concurrency": 2}}


@pytest.fixture
def proxy(db):
    with FaultProxy(f"{db.cluster.dir}/.s.PGSQL.5432") as one:
        one.uri = f"postgresql://{SUPERUSER}@127.0.0.1:{one.port}/{db.name}"
        yield one


@pytest.fixture
def limited(db):
    """The database for a role that is no superuser, so that rights and the number of its connections can be taken from
    it: limited.uri, limited.role."""
    role = "limited_" + db.name
    db.query(f"CREATE ROLE {role} LOGIN")
    for what in ("SCHEMA jobq", "ALL TABLES IN SCHEMA jobq", "ALL SEQUENCES IN SCHEMA jobq",
                 "ALL FUNCTIONS IN SCHEMA jobq"):
        db.query(f"GRANT ALL ON {what} TO {role}")
    db.role = role
    db.limited_uri = f"postgresql://{role}@/{db.name}?host={urllib.parse.quote(str(db.cluster.dir), safe='')}"
    yield db
    db.query(f"DROP OWNED BY {role}")
    db.query(f"DROP ROLE {role}")


def cpu_s(pid):
    """The processor time of a process so far."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def terminate(db, name):
    """Ends the backend of one of the daemon's connections; waits until it is gone."""
    sql = f"FROM pg_stat_activity WHERE application_name = 'jobqd {name}' AND datname = current_database()"
    wait_for(lambda: db.value(f"SELECT count(*) {sql}"))
    pid = db.value(f"SELECT pid {sql}")
    db.query("SELECT pg_terminate_backend(%s)", (pid,))
    wait_for(lambda: not db.value("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", (pid,)))


def executing(db):
    return db.value("SELECT count(*) FROM jobq.jobs WHERE state = 'executing'")


def wait_renewals(db, n):
    """Waits until a node has renewed its lease n times: the time that a test needs to see that nothing happens."""
    for _ in range(n):
        before = db.value("SELECT max(renewed_at) FROM jobq.nodes")
        wait_for(lambda: db.value("SELECT max(renewed_at) FROM jobq.nodes") != before)


# ---- signals in every state ----

@pytest.mark.parametrize("number", [signal.SIGTSTP, signal.SIGUSR1, signal.SIGCONT])
def test_signals_while_the_embedded_database_starts(home, jobqd, worker, number):
    node = jobqd(None, worker, embedded=home / "db", ready=False)
    node.wait_log("starts, node")
    node.signal(number)
    if number == signal.SIGTSTP:
        node.wait_log("claims no more jobs")
    node.wait_ready()
    if number == signal.SIGTSTP:
        node.signal(signal.SIGCONT)
        node.wait_log("claims jobs again")
    node.finish()


def test_stopped_while_the_embedded_database_starts(home, jobqd, worker):
    node = jobqd(None, worker, embedded=home / "db", ready=False)
    node.wait_log("starts, node")
    assert node.stop() == 0
    assert "bug: event-loop handles left open at exit" not in node.log()
    node.finish()


def test_asked_for_its_state_while_the_embedded_database_stops(home, jobqd, worker):
    """The actors are gone by then."""
    node = jobqd(None, worker, embedded=home / "db", log_level="debug")
    postmaster = int(node.wait_log(r"postgres: PostgreSQL \d+, process (\d+), is up").group(1))
    try:
        node.wait_log("is now the leader")
        node.signal(signal.SIGTERM)
        node.wait_log("node: node1 waits for nothing")
        os.kill(postmaster, signal.SIGSTOP)
        node.wait_log("jobqd: waits for the embedded database to stop")
        node.signal(signal.SIGUSR1)
        node.wait_log("jobqd: node 0, waits for the embedded database to stop")
    finally:
        os.kill(postmaster, signal.SIGCONT)
    node.finish()


@pytest.mark.parametrize("signals", [1, 2, 3])
def test_stopped_before_the_first_connection(db, proxy, jobqd, worker, signals):
    proxy.stall()
    node = jobqd(proxy.uri, worker, ready=False)
    node.wait_log("starts, node")
    for _ in range(signals):
        node.signal(signal.SIGTERM)
    assert node.wait() == 0


def test_stopped_before_the_schema_is_there(empty_db, jobqd, worker, cli):
    node = jobqd(empty_db, worker, ready=False)
    node.expected_exit = 69
    assert node.wait() == 69
    assert "schema jobq is missing in this database" in node.log() and "`jobqd migrate up`" in node.log()


def test_migrated_down_while_it_runs(db, jobqd, worker, cli):
    """It loses its lease, comes back to find no schema, and says so."""
    node = jobqd(db, worker, lease="2s")
    node.expected_exit = 69

    def drop():
        """By hand, without the locks of `jobqd migrate down`: what the node does meanwhile may be in its way."""
        with contextlib.suppress(psycopg.errors.DeadlockDetected):
            db.query("DROP SCHEMA jobq CASCADE")
            return True
    wait_for(drop)
    assert node.wait() == 69
    assert "schema jobq is missing in this database" in node.log() and "`jobqd migrate up`" in node.log()
    assert node.log().count("\n") < 100, "it must not flood the log"


# ---- a drain always ends ----

def test_drained_while_the_work_connection_cannot_come_back(limited, jobqd, worker, tmp_path):
    """The lease is renewed by another connection all the while, so it does not end the drain."""
    started = tmp_path / "started"
    node = jobqd(limited.limited_uri, worker, lease="3s", shutdown_grace="1s")
    job = limited.enqueue("sleep", f'{{"ms": 500, "file": "{started}"}}')
    wait_for(started.exists)
    limited.query(f"ALTER ROLE {limited.role} CONNECTION LIMIT 3")
    terminate(limited, "work")
    node.wait_log("without the work connection")
    assert node.stop(timeout=20) == 0
    limited.query(f"ALTER ROLE {limited.role} CONNECTION LIMIT -1")
    jobqd(limited.limited_uri, worker)
    wait_for(lambda: limited.value("SELECT state::text FROM jobq.all_jobs WHERE id = %s", (job,)) == "completed")


def test_a_second_signal_while_the_work_connection_cannot_come_back(limited, jobqd, worker, tmp_path):
    started = tmp_path / "started"
    node = jobqd(limited.limited_uri, worker, lease="10m", shutdown_grace="10m")
    limited.enqueue("hang", f'{{"file": "{started}"}}')
    wait_for(started.exists)
    limited.query(f"ALTER ROLE {limited.role} CONNECTION LIMIT 3")
    terminate(limited, "work")
    node.signal(signal.SIGTERM)
    node.wait_log("draining: ")
    node.signal(signal.SIGTERM)
    assert node.wait(timeout=30) == 0
    assert limited.states() == {"available": 1}


def test_stopped_while_the_database_is_away(db, proxy, jobqd, worker, tmp_path):
    started = tmp_path / "started"
    node = jobqd(proxy.uri, worker, lease="3s", shutdown_grace="1s")
    db.enqueue("hang", f'{{"file": "{started}"}}')
    wait_for(started.exists)
    proxy.refuse()
    proxy.cut()
    node.wait_log("database: unavailable")
    assert node.stop(timeout=30) == 0


def test_stopped_while_it_has_lost_its_lease_and_the_database_hangs(db, proxy, jobqd, worker, tmp_path):
    """A claim or an ack is under way on a connection that says nothing any more."""
    started = tmp_path / "started"
    node = jobqd(proxy.uri, worker, lease="1s", shutdown_grace="1s")
    db.enqueue("sleep", f'{{"ms": 300, "file": "{started}"}}')
    wait_for(started.exists)
    proxy.stall()
    node.wait_log("must stop its jobs")
    assert node.stop(timeout=20) == 0


def test_back_soon_after_a_lost_lease_whatever_hangs(db, proxy, jobqd, worker, tmp_path):
    """The old connections are dead without a word; new ones work at once."""
    started = tmp_path / "started"
    node = jobqd(proxy.uri, worker, lease="2s")
    job = db.enqueue("sleep", f'{{"ms": 300, "file": "{started}"}}')
    wait_for(started.exists)
    proxy.half_open()
    wait_for(lambda: db.value("SELECT state::text FROM jobq.all_jobs WHERE id = %s", (job,)) == "completed", 40)
    assert node.running


# ---- the work session ----

def test_a_session_that_is_refused_is_tried_again_without_haste(limited, jobqd, worker):
    node = jobqd(limited.limited_uri, worker)
    release = limited.value("SELECT oid::regprocedure::text FROM pg_proc WHERE proname = '_release'")
    limited.query(f"REVOKE EXECUTE ON FUNCTION {release} FROM {limited.role}")
    terminate(limited, "work")
    tries = r"^(\S+) WARNING database: could not open a work session"

    def times():
        return [datetime.datetime.fromisoformat(t.replace("Z", "+00:00")) for t in re.findall(tries, node.log(), re.M)]
    wait_for(lambda: len(times()) >= 4)
    assert times()[3] - times()[0] >= datetime.timedelta(seconds=1)
    limited.query(f"GRANT EXECUTE ON FUNCTION {release} TO {limited.role}")
    limited.enqueue("ok")
    limited.wait_for_states({"completed": 1})


def test_the_lease_is_renewed_while_a_session_is_being_opened(db, jobqd, worker):
    """The audit reads a large table through, or waits for a lock: that may take longer than the lease."""
    node = jobqd(db, worker, lease="1s")
    job = db.enqueue("ok", queue="elsewhere")
    db.query("UPDATE jobq.jobs SET state = 'executing', attempt = 1, attempted_by = (SELECT id FROM jobq.nodes)")
    with db.connect(autocommit=False) as conn:
        conn.execute("LOCK TABLE jobq.jobs IN ACCESS EXCLUSIVE MODE")
        terminate(db, "work")
        wait_for(lambda: db.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jobqd work'"
                                  " AND wait_event_type = 'Lock' AND datname = current_database()"))
        wait_renewals(db, 4)
        conn.rollback()
    assert "must stop its jobs" not in node.log()
    wait_for(lambda: db.value("SELECT state::text FROM jobq.jobs WHERE id = %s", [job]) == "available")


# ---- the tables changed by hand ----

@pytest.mark.parametrize("sql", ["DELETE FROM jobq.nodes", "TRUNCATE jobq.nodes", "TRUNCATE jobq.nodes RESTART IDENTITY"])
def test_the_rows_of_the_nodes_are_deleted_by_hand(db, jobqd, worker, tmp_path, sql):
    node = jobqd(db, worker, lease="1s")
    flag = tmp_path / "flag"
    ids = [db.enqueue("sleep", '{"ms": 700}') for _ in range(4)]
    wait_for(lambda: executing(db) >= 2)
    db.query(sql)
    node.wait_log("must stop its jobs")
    db.wait_for_states({"completed": len(ids)})
    assert node.running and not flag.exists()


def test_a_job_whose_node_has_no_row_is_not_lost(db, jobqd, worker):
    node = jobqd(db, worker)
    job = db.enqueue("hang")
    wait_for(lambda: executing(db))
    node.kill()
    db.query("DELETE FROM jobq.nodes")
    db.query("UPDATE jobq.jobs SET kind = 'ok' WHERE id = %s", (job,))
    jobqd(db, worker, lease="1s")
    db.wait_for_states({"completed": 1})
    error, = db.value("SELECT errors FROM jobq.all_jobs")
    assert error["kind"] == "orphaned"


def test_the_idle_marks_are_deleted_by_hand(db, jobqd, worker):
    jobqd(db, worker)
    wait_for(lambda: db.value("SELECT count(*) FROM jobq._idle"))
    db.query("TRUNCATE jobq._idle")
    db.enqueue("ok")
    db.wait_for_states({"completed": 1})
    wait_for(lambda: db.value("SELECT count(*) FROM jobq._idle"), what="the queue to be marked again")


@pytest.mark.parametrize("sql", ["TRUNCATE jobq.jobs RESTART IDENTITY", "ALTER SEQUENCE jobq.jobs_position_seq RESTART"])
def test_positions_begin_again(db, jobqd, worker, sql):
    """The claims' cursor is far ahead of them."""
    node = jobqd(db, worker)
    for _ in range(3):
        db.query("INSERT INTO jobq.jobs (kind) SELECT 'ok' FROM generate_series(1, 100)")
        wait_for(lambda: executing(db) == 0 and not db.value("SELECT count(*) FROM jobq.jobs"))
    wait_for(lambda: db.value("SELECT count(*) FROM jobq._idle"))
    db.query(sql)
    job = db.enqueue("ok")
    wait_for(lambda: not db.value("SELECT count(*) FROM jobq.jobs"), what=f"job {job} to be claimed")
    assert node.running



def test_claims_of_a_locked_job_are_paced(db, jobqd, worker):
    """Somebody holds a lock on the only available job: looks see it, claims skip it."""
    node = jobqd(db, worker, lease="1500ms")
    with db.connect(autocommit=False) as conn:
        for jobs in range(1, 50):  # until we are quicker than the claim
            job = db.enqueue("ok", queue="aside")
            conn.execute("UPDATE jobq.jobs SET queue = 'default' WHERE id = %s", (job,))
            conn.commit()
            locked = conn.execute("SELECT FROM jobq.jobs WHERE state = 'available' FOR UPDATE SKIP LOCKED").rowcount
            if locked == 1:
                break
            conn.rollback()
        assert locked == 1
        wait_renewals(db, 1)
        before = cpu_s(node.pid)
        wait_renewals(db, 3)
        used = cpu_s(node.pid) - before
        conn.rollback()
    assert used < 0.25, f"{used} s of processor time in 1.5 s"
    db.wait_for_states({"completed": jobs})


# ---- idle marks while the control connection is away ----

def test_a_mark_that_cannot_be_taken_back_costs_nothing(limited, jobqd, programs, tmp_path):
    queue = {"default": {"command": programs("fault_worker"), "concurrency": 2, "mailbox": 1}}
    node = jobqd(limited.limited_uri, queue, lease="30s")
    wait_for(lambda: limited.value("SELECT count(*) FROM jobq._idle"))
    limited.query(f"ALTER ROLE {limited.role} CONNECTION LIMIT 3")
    terminate(limited, "control")
    node.wait_log("database: unavailable")
    before = cpu_s(node.pid)
    for _ in range(2):
        limited.enqueue("sleep", '{"ms": 1500}')
    limited.wait_for_states({"completed": 2})
    used = cpu_s(node.pid) - before
    limited.query(f"ALTER ROLE {limited.role} CONNECTION LIMIT -1")
    assert used < 0.5, f"{used} s of processor time"


# ---- leases ----

def test_stopped_past_its_lease_and_continued(db, jobqd, worker, tmp_path):
    """SIGSTOP of one of two nodes for longer than its lease. It kills its workers, its answers are refused, and it
    comes back under a new id; what it held is done by the other."""
    node = jobqd(db, worker, lease="1s")
    held = [db.enqueue("sleep", '{"ms": 400}') for _ in range(2)]
    wait_for(lambda: executing(db) == 2)
    first = db.value("SELECT id FROM jobq.nodes")
    workers = set(node.workers())
    node.signal(signal.SIGSTOP)
    other = jobqd(db, worker, lease="1s")
    db.wait_for_states({"completed": len(held)})
    assert db.value("SELECT count(*) FROM jobq.all_jobs WHERE attempted_by = %s", (first,)) == 0
    node.signal(signal.SIGCONT)
    node.wait_log("must stop its jobs")
    wait_for(lambda: not workers & set(node.workers()))
    wait_for(lambda: db.value("SELECT id FROM jobq.nodes WHERE name = 'node1'") not in (None, first))
    other.stop()
    db.enqueue("ok")
    db.wait_for_states({"completed": len(held) + 1})


def test_a_name_that_a_living_node_has(db, jobqd, worker):
    jobqd(db, worker, node="one", lease="2s")
    rival = jobqd(db, worker, node="one", lease="2s", ready=False)
    assert rival.wait() == 69
    assert "the name one is in use by a running node" in rival.log()
    rival.expected_exit = 69


def test_a_name_whose_process_is_dead_is_taken_over_at_once(db, jobqd, worker):
    dead = jobqd(db, worker, node="one", lease="10m")
    job = db.enqueue("hang")
    wait_for(lambda: executing(db))
    dead.kill()
    db.query("UPDATE jobq.jobs SET kind = 'ok' WHERE id = %s", (job,))
    jobqd(db, worker, node="one", lease="10m")
    db.wait_for_states({"completed": 1})


def test_a_name_whose_process_is_a_zombie_is_taken_over_at_once(db, jobqd, worker):
    """As under a parent that does not wait for its children."""
    zombie = jobqd(db, worker, node="one", lease="10m")
    zombie.signal(signal.SIGKILL)
    zombie.expected_exit = -signal.SIGKILL
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    jobqd(db, worker, node="one", lease="10m")


# ---- what a database may be set to ----

@pytest.mark.parametrize("setting", ["default_transaction_isolation = 'serializable'",
                                     "default_transaction_isolation = 'repeatable read'",
                                     "default_transaction_deferrable = on"])
def test_what_a_database_is_set_to_does_not_matter(db, jobqd, worker, setting):
    db.query(f'ALTER DATABASE "{db.name}" SET {setting}')
    nodes = [jobqd(db, worker, lease="2s"), jobqd(db, worker, lease="2s")]
    with db.connect() as conn:
        conn.execute("SET statement_timeout = 0")
        conn.execute("INSERT INTO jobq.jobs (kind) SELECT 'ok' FROM generate_series(1, 500)")
    wait_for(lambda: not db.value("SELECT count(*) FROM jobq.jobs"))
    for node in nodes:
        assert node.complaints() == []


def test_a_statement_timeout_of_the_database_does_not_matter(db, jobqd, worker):
    db.query(f"ALTER DATABASE \"{db.name}\" SET statement_timeout = '500ms'")
    db.query("CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1.5); RETURN NEW; END';"
             "CREATE TRIGGER slow BEFORE UPDATE ON jobq.jobs FOR EACH ROW EXECUTE FUNCTION slow()")
    node = jobqd(db, worker, lease="60s")
    db.enqueue("ok")
    db.enqueue("ok", scheduled_at="2000-01-01")
    db.query("SELECT jobq.enqueue('ok', scheduled_at => now() + interval '100 ms')")
    db.wait_for_states({"completed": 3})
    assert "statement timeout" not in node.log()


def test_a_schema_whose_name_must_be_quoted(empty_db, jobqd, cli, worker):
    cli("migrate", "up", "--schema", "order", db=empty_db)
    empty_db.schema = '"order"'
    node = jobqd(empty_db, worker, schema="order", poll_interval="10s")
    wait_for(lambda: empty_db.value('SELECT count(*) FROM "order"._idle'))
    empty_db.enqueue("ok")
    empty_db.wait_for_states({"completed": 1}, timeout=5)  # sooner than the next poll: it was woken
    assert node.stop() == 0


def test_jobs_run_while_a_repeatable_read_transaction_is_open(db, jobqd, worker):
    with db.connect(autocommit=False) as conn:
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        conn.execute("SELECT count(*) FROM jobq.jobs")
        jobqd(db, worker)
        for _ in range(20):
            db.enqueue("ok")
        db.wait_for_states({"completed": 20})
        conn.rollback()


# ---- workers that are full, gone, or fed with large jobs ----

def test_a_full_queue_does_not_hold_up_its_neighbours(db, jobqd, programs):
    queue = {"command": programs("fault_worker"), "concurrency": 1, "mailbox": 1}
    jobqd(db, {"full": queue, "a": queue, "b": queue}, poll_interval="10s", shutdown_grace="1s")
    for _ in range(3):
        db.enqueue("hang", queue="full")
    wait_for(lambda: executing(db) == 1)
    wait_for(lambda: db.query("SELECT queue FROM jobq._idle ORDER BY 1") == [("a",), ("b",)],
             what="no mark of the full queue")
    for _ in range(20):
        db.enqueue("ok", queue="a")
        db.enqueue("ok", queue="b")
    wait_for(lambda: db.states().get("completed") == 40)
    assert db.value("SELECT count(*) FROM jobq.jobs WHERE queue = 'full'") == 3


def test_a_queue_that_backs_off_holds_no_jobs(db, jobqd, programs, tmp_path):
    """Its program breaks while there is a backlog: what was claimed ahead goes back, for other nodes to take."""
    program = tmp_path / "worker"
    shutil.copy(programs("noop_worker"), program)
    node = jobqd(db, {"default": {"command": program, "concurrency": 2}}, lease="2s")
    db.query("INSERT INTO jobq.jobs (kind) SELECT 'ok' FROM generate_series(1, 300000)")
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs") < 290000)
    program.unlink()
    for pid in list(node.workers()):
        os.kill(pid, signal.SIGKILL)
    node.wait_log("back")
    wait_for(lambda: executing(db) == 0, what=lambda: f"no job to be held: {executing(db)} are")


def test_large_jobs_behind_small_ones_do_not_fill_the_memory(db, jobqd, programs):
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 4}}, max_frame="4MiB")
    db.query("INSERT INTO jobq.jobs (kind) SELECT 'ok' FROM generate_series(1, 30000)")
    with db.connect(autocommit=False) as conn:
        conn.execute("CREATE TABLE large AS SELECT jsonb_build_object('text', repeat(md5('x'), 93750)) AS args")
        conn.execute("INSERT INTO jobq.jobs (kind, args) SELECT 'ok', args FROM large, generate_series(1, 150)")
        conn.execute("INSERT INTO jobq.jobs (kind) SELECT 'ok' FROM generate_series(1, 50000)")
        conn.commit()
    most = 0

    def done():
        nonlocal most
        most = max(most, node.rss_kb())
        return not db.value("SELECT EXISTS (SELECT FROM jobq.jobs)")
    wait_for(done, 200)
    assert most < 400_000, f"{most} kB resident"


def test_a_large_job_that_is_gone_before_its_arguments_are_fetched(db, jobqd, programs):
    """Its row goes with the claim; the jobs behind it must not wait for it."""
    db.query("""CREATE FUNCTION go() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN DELETE FROM jobq.jobs WHERE id = NEW.id; RETURN NULL; END'""")
    db.query("CREATE TRIGGER go AFTER UPDATE ON jobq.jobs FOR EACH ROW"
             " WHEN (NEW.kind = 'gone' AND NEW.state = 'executing') EXECUTE FUNCTION go()")
    db.query("INSERT INTO jobq.jobs (kind, args) SELECT kind, jsonb_build_object('text', text)"
             "  FROM unnest('{gone,ok,gone,gone,ok}'::text[]) kind,"
             "       (SELECT string_agg(md5(i::text), '') AS text FROM generate_series(1, 90000) i) t")
    db.enqueue("ok")
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 1}})
    db.wait_for_states({"completed": 3})
    node.signal(signal.SIGUSR1)
    node.wait_log("\"held\": ?0")
