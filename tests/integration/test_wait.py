"""jobq_job_wait, jobq_client_wait, jobq.wait and `jobqd job --wait`: until a job has ended, or the time is over."""

import json
import subprocess
import threading
import time

import psycopg
import pytest

from faultproxy import FaultProxy
from harness.daemon import clean_environment
from harness.waiting import wait_for

HOUR = '{"ms": 3600000}'


class Waiter:
    """A wait_client: a process that waits for jobs."""

    def __init__(self, programs, conninfo, timeout_ms, *jobs, **env):
        self.process = subprocess.Popen([programs("wait_client"), conninfo, str(timeout_ms), *map(str, jobs)],
                                        stdout=subprocess.PIPE, text=True, env=clean_environment(**env))
        assert self.process.stdout.readline() == "waits\n"

    def lines(self):
        with self.process.stdout as out: # not communicate(), which has no eye for what readline() read ahead
            lines = out.read().splitlines()
        assert self.process.wait(timeout=120) == 0
        return lines


def wait_running(db, *jobs):
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs WHERE state = 'executing' AND id = ANY (%s)", [list(jobs)]) == len(jobs),
             what="the jobs to run")


def test_a_client_waits_for_results(db, jobqd, programs):
    waiter = Waiter(programs, db.conninfo, -1, *(jobs := [
        db.enqueue("ok", '{"result": {"n": 123456789012345678}}'), db.enqueue("discard", '{"error": "no"}'), db.enqueue("ok")]))
    cancelled = db.enqueue("ok", scheduled_at="2099-01-01T00:00:00Z")
    late = Waiter(programs, db.conninfo, -1, cancelled)
    jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 2}})
    assert waiter.lines() == [f'{jobs[0]} completed {{"n": 123456789012345678}}', f"{jobs[1]} discarded -",
                              f"{jobs[2]} completed -"]
    db.query("SELECT jobq.cancel(%s)", [cancelled])
    assert late.lines() == [f"{cancelled} cancelled -"]


def test_the_time_is_over(db, programs):
    job = db.enqueue("a")
    assert Waiter(programs, db.conninfo, 0, job, 999).lines() == [f"{job} JOBQ_ETIMEOUT", "999 JOBQ_ENOTFOUND"]
    assert Waiter(programs, db.conninfo, 250, job).lines() == [f"{job} JOBQ_ETIMEOUT"]


def test_a_retry_by_hand_is_waited_for(db, jobqd, programs):
    """It leaves the history again between two looks."""
    job = db.enqueue("ok", scheduled_at="2099-01-01T00:00:00Z")
    waiter = Waiter(programs, db.conninfo, -1, job)
    db.query("BEGIN; SELECT jobq.cancel(%d); SELECT jobq.retry(%d); COMMIT" % (job, job))
    jobqd(db, {"default": {"command": programs("fault_worker")}})
    assert waiter.lines() == [f"{job} completed -"]


def test_a_job_that_leaves_no_trace(db, jobqd, programs):
    waited, deleted = db.enqueue("sleep", '{"ms": 300}'), db.enqueue("ok", queue="nobody")
    waiters = [Waiter(programs, db.conninfo, -1, job) for job in (waited, deleted)]
    jobqd(db, {"default": {"command": programs("fault_worker"), "keep": "none"}})
    db.query("SELECT jobq.delete(%s)", [deleted])
    assert waiters[0].lines() == [f"{waited} JOBQ_ENOTFOUND"]
    assert waiters[1].lines() == [f"{deleted} JOBQ_ENOTFOUND"]


def test_many_waiters_at_once(db, jobqd, programs):
    jobs = [db.enqueue("ok", json.dumps({"result": {"n": n}})) for n in range(20)]
    waiters = [Waiter(programs, db.conninfo, -1, *(jobs[n:] + jobs[:n])) for n in range(20)]
    jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 2}})
    expected = {f'{job} completed {{"n": {n}}}' for n, job in enumerate(jobs)}
    for waiter in waiters:
        assert set(waiter.lines()) == expected


def test_through_a_pooler(db, jobqd, programs, pgbouncer):
    """Four server connections for ten waiters, who hold none between their looks."""
    uri = pgbouncer(db)
    jobs = [db.enqueue("sleep", '{"ms": 200}') for _ in range(10)]
    waiters = [Waiter(programs, uri, -1, job) for job in jobs]
    jobqd(uri, {"default": {"command": programs("fault_worker"), "concurrency": 4}})
    assert [line for waiter in waiters for line in waiter.lines()] == [f"{job} completed -" for job in jobs]


def test_across_the_daemons_end(db, jobqd, programs, tmp_path):
    queues = {"default": {"command": programs("fault_worker"), "concurrency": 1}}
    first = jobqd(db, queues, lease="1s")
    file = tmp_path / "started"
    job = db.enqueue("ok", '{"result": {"done": true}}')
    slow = db.enqueue("sleep", json.dumps({"ms": 1500, "file": str(file)}))
    waiter = Waiter(programs, db.conninfo, -1, job, slow)
    wait_for(file.exists, what="the slow one to run")
    first.kill()
    jobqd(db, queues, lease="1s")
    assert waiter.lines() == [f'{job} completed {{"done": true}}', f"{slow} completed -"]


def test_across_a_restart_of_the_database(cluster, jobqd, programs):
    db = cluster.db
    job = db.enqueue("ok", '{"result": 5}', scheduled_at="2099-01-01T00:00:00Z")
    waiter = Waiter(programs, db.conninfo, -1, job)
    away = Waiter(programs, db.conninfo, 400, job)
    wait_for(lambda: db.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jobq'") == 2, what="both to wait")
    cluster.stop("immediate")
    assert away.lines() == [f"{job} JOBQ_ECONN"]
    cluster.start()
    jobqd(db, {"default": {"command": programs("fault_worker")}})
    db.query("SELECT jobq.retry(%s)", [job])
    assert waiter.lines() == [f"{job} completed 5"]


# ---- a network that hangs ----

@pytest.fixture
def proxy(db):
    with FaultProxy(f"{db.cluster.dir}/.s.PGSQL.5432") as it:
        it.conninfo = f"{db.conninfo} host=127.0.0.1 port={it.port}"
        yield it


def look_often(proxy):
    """Waits until the waiter has looked a few times."""
    seen = proxy.counts()["up"]
    wait_for(lambda: proxy.counts()["up"] > seen + 1000, what="some looks")


@pytest.mark.parametrize("env", [{}, {"JOBQ_TEST_LENT": "1"}], ids=["client", "lent"])
def test_the_time_is_over_when_the_network_hangs(db, programs, proxy, env):
    """The second job, with the network well again: the client has a new connection, the lent one stays broken."""
    job = db.enqueue("a")
    done = db.enqueue("b")
    db.query("SELECT jobq.cancel(%s)", [done])
    waiter = Waiter(programs, proxy.conninfo, 3000, job, done, **env)
    began = time.monotonic()
    look_often(proxy)
    proxy.stall()
    assert waiter.process.stdout.readline() == f"{job} JOBQ_ECONN\n"
    took = time.monotonic() - began
    assert 2.9 < took < 20  # 4.5 on a machine that is not busy
    if env:
        assert waiter.process.stdout.readline() == f"{done} JOBQ_ECONN\n"
        assert waiter.lines() == []
        assert proxy.counts()["connections"] == 1
        proxy.resume()
    else:
        proxy.resume()
        assert waiter.lines() == [f"{done} cancelled -"]


def test_the_time_is_over_when_no_connection_comes_about(db, programs, proxy):
    """The old one is lost, and the new one is met by silence."""
    job = db.enqueue("a")
    waiter = Waiter(programs, proxy.conninfo, 3000, job, job)
    look_often(proxy)
    proxy.stall()
    proxy.cut()
    began = time.monotonic()
    assert waiter.lines() == [f"{job} JOBQ_ECONN"] * 2
    assert time.monotonic() - began < 40
    assert proxy.counts()["connections"] >= 2
    proxy.resume()


@pytest.mark.parametrize("env", [{}, {"JOBQ_TEST_LENT": "1"}], ids=["client", "lent"])
def test_a_network_that_hangs_for_a_while_is_waited_for(db, programs, proxy, env):
    job = db.enqueue("a")
    waiter = Waiter(programs, proxy.conninfo, 60000, job, **env)
    look_often(proxy)
    proxy.stall()
    db.query("SELECT jobq.cancel(%s)", [job])
    proxy.resume()
    assert waiter.lines() == [f"{job} cancelled -"]
    assert proxy.counts()["connections"] == 1


# ---- SQL ----

def call(conn, job, timeout):
    return conn.execute("CALL jobq.wait(%s::bigint, %s::interval)", [job, timeout]).fetchone()


def test_the_procedure(db, jobqd, programs):
    ends, never = db.enqueue("sleep", '{"ms": 300}'), db.enqueue("a", queue="nobody")
    result = db.enqueue("ok", '{"result": {"n": 1}}')
    jobqd(db, {"default": {"command": programs("fault_worker")}})
    with db.connect() as conn:
        assert call(conn, ends, "1 minute") == ("completed", None)
        assert call(conn, result, "1 minute") == ("completed", {"n": 1})
        assert call(conn, never, "0") == ("available", None)
        assert call(conn, never, "0.2 s") == ("available", None)


PROCEDURE_FAULTS = [
    ("7, '1 s'", "P0002", "jobq.wait: no job has the id 7; it may have completed without being kept, or been deleted"),
    ("NULL, '1 s'", "P0002", "jobq.wait: no job has the id null; it may have completed without being kept, or been deleted"),
    ("7, NULL", "22023", "jobq.wait: timeout must be an interval of 0 or more, got null"),
    ("7, '-1 s'", "22023", "jobq.wait: timeout must be an interval of 0 or more, got -00:00:01"),
]


def test_a_procedure_that_waits_for_ever(db):
    job = db.enqueue("a")
    db.query("SELECT jobq.cancel(%s)", [job])
    assert db.value(f"CALL jobq.wait({job}, '1000000 years')") == "cancelled"


@pytest.mark.parametrize("arguments,sqlstate,message", PROCEDURE_FAULTS, ids=[f[0] for f in PROCEDURE_FAULTS])
def test_the_procedure_refuses(db, arguments, sqlstate, message):
    with pytest.raises(psycopg.Error) as caught:
        db.query(f"CALL jobq.wait({arguments})")
    assert (caught.value.sqlstate, caught.value.diag.message_primary) == (sqlstate, message)


def test_the_procedure_in_a_transaction(db):
    job = db.enqueue("a")
    with db.connect(autocommit=False) as conn:
        conn.execute("SELECT 1")
        with pytest.raises(psycopg.errors.InvalidTransactionTermination):
            call(conn, job, "1 s")


def test_the_procedure_holds_no_snapshot(db):
    job = db.enqueue("a")
    with db.connect() as conn:
        thread = threading.Thread(target=call, args=(conn, job, "1 hour"))
        thread.start()
        pid = conn.info.backend_pid
        seen = set()
        wait_for(lambda: seen.add(db.value("SELECT xact_start FROM pg_stat_activity WHERE pid = %s", [pid])) or len(seen) > 5,
                 what="one transaction after the other")
        db.query("SELECT jobq.cancel(%s)", [job])
        thread.join()


# ---- the command line ----

def test_the_command(cli, db, jobqd, programs):
    result, hangs = db.enqueue("ok", '{"result": {"n": 1}}'), db.enqueue("sleep", HOUR)
    node = jobqd(db, {"default": {"command": programs("fault_worker"), "concurrency": 2}})
    assert json.loads(cli("job", result, "--wait", "1m", "--json", db=db).stdout)["result"] == {"n": 1}
    wait_running(db, hangs)
    late = cli("job", hangs, "--wait", "200ms", db=db, code=75)
    assert late.stderr == f"jobqd job: job {hangs} is executing after 200 ms\n"
    assert late.stdout.startswith(f"job {hangs}\n  state       executing\n")
    assert cli("job", 999, "--wait", "1s", db=db, code=66).stderr == "jobqd job: no job has the id 999\n"
    assert cli("job", 1, "--wait", "soon", db=db, code=64).stderr.startswith('jobqd job: --wait: "soon" is not a duration')
    node.stop_at_once()
