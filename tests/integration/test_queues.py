"""Queues under control: paused, resumed and scaled, on all nodes or on one, while jobs run and whatever is restarted."""

import json
import signal

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege, InvalidParameterValue, ObjectNotInPrerequisiteState

from harness.crowd import enqueue_crowd, wait_all_finished, wait_ended
from harness.ledger import Ledger
from harness.sqlfiles import statement
from harness.waiting import wait_for


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def worker(programs):
    """The queue that is steered, and another one, by which it is seen that the node claims jobs at all."""
    return {"mail": {"command": programs("fault_worker"), "concurrency": 2},
            "other": {"command": programs("fault_worker"), "concurrency": 1}}


def looks_of_the_steward(db, n=4):
    """Waits for so many renewals of each node's lease, a third of a second apart in these tests; the settings are read
    twice a second."""
    for _ in range(n):
        since = db.value("SELECT clock_timestamp()")
        wait_for(lambda: db.value("SELECT bool_and(renewed_at > %s) FROM jobq.nodes", (since,)), what="a renewed lease")


def the_node_claims(db):
    job = db.enqueue("ok", queue="other")
    wait_for(lambda: db.value("SELECT true FROM jobq.finished_jobs WHERE id = %s", (job,)), what="the other queue's job")


def waits_untouched(db, job):
    the_node_claims(db)
    looks_of_the_steward(db)
    assert db.query("SELECT state::text, attempt, attempted_at FROM jobq.all_jobs WHERE id = %s", (job,)) == \
        [("available", 0, None)]


def completed(db, job):
    wait_for(lambda: db.value("SELECT state::text FROM jobq.all_jobs WHERE id = %s", (job,)) == "completed",
             what=lambda: f"job {job} to be done: {db.query('SELECT * FROM jobq.all_jobs')}")


def pause_everything_and_look(db, conn):
    """Pauses in the middle of a backlog; returns how many seconds after the commit the last job was claimed."""
    conn.execute("SELECT jobq.pause('mail')")
    at = db.value("SELECT clock_timestamp()")
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs WHERE state = 'executing'") == 0, what=db.states)
    looks_of_the_steward(db)
    assert db.value("SELECT count(*) FROM jobq.jobs WHERE state = 'executing'") == 0
    return db.value("SELECT extract(epoch FROM max(attempted_at) - %s) FROM jobq.all_jobs", (at,))


# ---- pause and resume ----

@pytest.mark.alone
@pytest.mark.parametrize("notify,way", [("on", "direct"), ("off", "direct"), ("on", "pooler"), ("off", "pooler")])
def test_a_pause_counts_within_a_second_and_loses_nothing(db, jobqd, programs, ledger, pgbouncer, notify, way):
    """In the middle of claims: what was claimed and not begun goes back uncounted, and each job runs once."""
    uri = pgbouncer(db) if way == "pooler" else db.uri
    queue = {"mail": {"command": ledger.command(programs("ledger_worker"), 100, 1000), "concurrency": 4}}
    for _ in range(2):
        jobqd(uri, queue, lease="1s", notify=notify)
    ids = enqueue_crowd(db, 20_000, queue="mail")
    with psycopg.connect(uri, autocommit=True, prepare_threshold=None) as conn:
        for round in range(1, 4):
            wait_ended(ledger, round * 2000)
            late_s = pause_everything_and_look(db, conn)
            print(f"notify {notify}, {way}: the last claim {late_s} s after the pause")
            assert late_s < 1
            assert db.value("SELECT count(*) FROM jobq.jobs WHERE attempt > 0") == 0
            conn.execute("SELECT jobq.resume('mail')")
    wait_all_finished(db, len(ids))
    assert db.query("SELECT DISTINCT state::text, attempt, errors FROM jobq.finished_jobs") == [("completed", 1, [])]
    runs = ledger.read().by_job()
    assert sorted(runs) == sorted(ids) and {len(of_job) for of_job in runs.values()} == {1}


def test_running_jobs_go_on(db, jobqd, worker, tmp_path):
    jobqd(db, worker, lease="1s")
    running = [db.enqueue("sleep", json.dumps({"ms": 3000, "file": f"{tmp_path}/{i}"}), queue="mail") for i in range(2)]
    wait_for(lambda: all((tmp_path / str(i)).exists() for i in range(2)))
    behind = db.enqueue("ok", queue="mail")
    assert db.value("SELECT jobq.pause('mail')") is True
    for job in running:
        completed(db, job)
    waits_untouched(db, behind)
    assert db.value("SELECT jobq.resume('mail')") is True
    completed(db, behind)
    assert db.query("SELECT DISTINCT attempt, errors FROM jobq.finished_jobs") == [(1, [])]


def restart(node, db, worker):
    node.stop()
    node.start()


def kill(node, db, worker):
    node.kill()
    node.start()
    node.expected_exit = 0


def reload(node, db, worker):
    node.reload()


def reload_that_brings_the_queue(node, db, worker):
    node.reload({"other": worker["other"]})
    node.wait_log("queue mail: removed")
    node.reload(worker)


def upgrade(node, db, worker):
    node.signal(signal.SIGUSR2)
    node.wait_log("took over from jobqd")


def connections_lost(node, db, worker):
    since = db.value("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'jobqd%%' AND datname = %s", (db.name,))
    assert since > 0
    db.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'jobqd%%' AND datname = %s",
             (db.name,))
    node.wait_log("database: available again")


@pytest.mark.parametrize("how", [restart, kill, reload, reload_that_brings_the_queue, upgrade, connections_lost],
                         ids=lambda how: how.__name__)
def test_a_pause_outlives(db, jobqd, worker, how):
    node = jobqd(db, worker, lease="1s")
    db.value("SELECT jobq.pause('mail')")
    node.wait_log("queue mail: paused")
    job = db.enqueue("ok", queue="mail")
    how(node, db, worker)
    waits_untouched(db, job)
    db.value("SELECT jobq.resume('mail')")
    completed(db, job)


def test_a_pause_that_was_set_while_the_node_was_away(db, jobqd, worker):
    """Its workers are idle, so there is nothing that a first claim would wait for."""
    node = jobqd(db, worker, lease="5s")
    node.wait_ready()
    with db.connect() as conn, conn.transaction():
        gone = conn.execute("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                            " WHERE application_name LIKE 'jobqd%%' AND datname = %s", (db.name,)).fetchone()[0]
        assert gone > 0
        conn.execute("SELECT jobq.pause('mail')")
        job = conn.execute("SELECT jobq.enqueue('ok', queue => 'mail')").fetchone()[0]
    node.wait_log("queue mail: paused")
    waits_untouched(db, job)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_pause_outlives_the_database(cluster, jobqd, worker, how):
    db = cluster.db
    node = jobqd(db, worker, lease="5s")
    db.value("SELECT jobq.pause('mail')")
    node.wait_log("queue mail: paused: claiming no jobs until `jobqd resume`")
    job = db.enqueue("ok", queue="mail")
    getattr(cluster, how)()
    cluster.start()
    node.wait_log("database: available again")
    the_node_claims(db)
    assert db.value("SELECT attempt FROM jobq.jobs WHERE id = %s", (job,)) == 0
    db.value("SELECT jobq.resume('mail')")
    completed(db, job)


def test_a_pause_from_before_the_first_start(db, jobqd, worker):
    """Nobody serves the queue yet. From the first moment on, nothing of it is claimed."""
    assert db.value("SELECT jobq.pause('mail')") is True
    job = db.enqueue("ok", queue="mail")
    jobqd(db, worker, lease="1s")
    waits_untouched(db, job)


def test_one_of_two_nodes(db, jobqd, worker):
    first, second = jobqd(db, worker, lease="1s"), jobqd(db, worker, lease="1s")
    assert db.value("SELECT jobq.pause('mail', 'node1')") is True
    first.wait_log("queue mail: paused")
    ids = [db.enqueue("ok", queue="mail") for _ in range(50)]
    for job in ids:
        completed(db, job)
    ran_on = "SELECT DISTINCT n.name FROM jobq.finished_jobs j JOIN jobq.nodes n ON n.id = j.attempted_by WHERE j.queue = 'mail'"
    assert db.query(ran_on) == [("node2",)]
    # The one that a pause names need not be there: it finds it when it comes back.
    first.stop()
    second.stop()
    first.start()
    job = db.enqueue("ok", queue="mail")
    waits_untouched(db, job)
    second.start()
    completed(db, job)
    second.stop()
    job = db.enqueue("ok", queue="mail")
    assert db.value("SELECT jobq.resume('mail', 'node1')") is True
    completed(db, job)
    assert db.query("SELECT * FROM jobq.queue_nodes") == []


def test_resume_lifts_the_pauses_of_single_nodes_too(db, jobqd, worker):
    node = jobqd(db, worker, lease="1s")
    db.value("SELECT jobq.pause('mail')")
    db.value("SELECT jobq.pause('mail', 'node1')")
    node.wait_log("queue mail: paused")
    job = db.enqueue("ok", queue="mail")
    with pytest.raises(ObjectNotInPrerequisiteState):
        db.value("SELECT jobq.resume('mail', 'node1')")
    waits_untouched(db, job)
    assert db.value("SELECT jobq.resume('mail')") is True
    completed(db, job)
    assert db.value("SELECT jobq.resume('mail')") is False


def test_a_pause_and_tstp_are_two_things(db, jobqd, worker):
    """What one of them has stopped, the other's end does not start."""
    node = jobqd(db, worker, lease="1s")
    node.signal(signal.SIGTSTP)
    node.wait_log("claims no more jobs until SIGCONT")
    db.value("SELECT jobq.pause('mail')")
    node.wait_log("queue mail: paused")
    node.signal(signal.SIGCONT)
    node.wait_log("jobqd: claims jobs again")
    job = db.enqueue("ok", queue="mail")
    waits_untouched(db, job)
    start = len(node.log())
    node.signal(signal.SIGTSTP)
    wait_for(lambda: "claims no more jobs until SIGCONT" in node.log()[start:])
    db.value("SELECT jobq.resume('mail')")
    node.wait_log("queue mail: resumed")
    looks_of_the_steward(db)
    assert db.value("SELECT attempt FROM jobq.jobs WHERE id = %s", (job,)) == 0
    node.signal(signal.SIGCONT)
    completed(db, job)


def test_nobody_wakes_a_paused_queue(db, jobqd, worker):
    jobqd(db, worker, lease="1s")
    marks = "SELECT queue FROM jobq._idle ORDER BY 1"
    wait_for(lambda: db.query(marks) == [("mail",), ("other",)])
    db.value("SELECT jobq.pause('mail')")
    wait_for(lambda: db.query(marks) == [("other",)])
    the_node_claims(db)
    wait_for(lambda: db.query(marks) == [("other",)])
    db.value("SELECT jobq.resume('mail')")
    wait_for(lambda: db.query(marks) == [("mail",), ("other",)])


def test_what_a_worker_s_mailbox_holds_is_done_and_no_more(db, jobqd, programs, tmp_path):
    """Jobs that have been sent to a worker are its; a fixed mailbox may hold many."""
    jobqd(db, {"mail": {"command": programs("fault_worker"), "concurrency": 1, "mailbox": 3}}, lease="1s")
    ids = [db.enqueue("sleep", json.dumps({"ms": 700, "file": f"{tmp_path}/runs"}), queue="mail") for _ in range(10)]
    wait_for((tmp_path / "runs").exists)
    db.value("SELECT jobq.pause('mail')")
    wait_for(lambda: db.states().get("executing", 0) == 0, what=db.states)
    runs = (tmp_path / "runs").read_text().splitlines()
    assert 1 <= len(runs) <= 4
    assert db.query("SELECT DISTINCT attempt FROM jobq.jobs") == [(0,)]
    db.value("SELECT jobq.resume('mail')")
    wait_all_finished(db, len(ids))
    assert len((tmp_path / "runs").read_text().splitlines()) == len(ids)


# ---- scale ----

def wait_workers(node, n):
    wait_for(lambda: len(node.workers()) == n, what=lambda: f"{n} workers: {node.workers()}\n{node.log()}")


def test_scaled_up_and_down_while_jobs_run(db, jobqd, programs, tmp_path):
    node = jobqd(db, {"mail": {"command": programs("fault_worker"), "concurrency": 2, "mailbox": 1}}, lease="1s")
    wait_workers(node, 2)
    assert db.value("SELECT jobq.scale('mail', 5)") is True
    wait_workers(node, 5)
    running = [db.enqueue("sleep", json.dumps({"ms": 3000, "file": f"{tmp_path}/{i}"}), queue="mail") for i in range(5)]
    wait_for(lambda: all((tmp_path / str(i)).exists() for i in range(5)))
    assert db.value("SELECT jobq.scale('mail', 1)") is True
    node.wait_log("queue mail: number of workers scaled from 5 to 1")
    behind = db.enqueue("ok", queue="mail")
    for job in [*running, behind]:
        completed(db, job)
    wait_workers(node, 1)
    assert db.query("SELECT DISTINCT attempt, errors FROM jobq.finished_jobs") == [(1, [])]
    assert db.value("SELECT jobq.scale('mail', NULL)") is True
    wait_workers(node, 2)


@pytest.mark.parametrize("kind", ["command", "exec", "preload"])
def test_scaled_to_nothing_and_back(db, jobqd, programs, tmp_path, kind):
    queue = {"command": programs("fault_worker"), "concurrency": 2}
    if kind == "exec":
        queue = {"exec": f"/bin/sh -c 'cat >/dev/null; echo run >>{tmp_path}/runs; sleep 1'", "concurrency": 2}
    if kind == "preload":
        queue = {"command": f"{programs('preload_worker')} {tmp_path}/log 1", "preload": "on", "concurrency": 2}
    node = jobqd(db, {"mail": queue, "other": {"command": programs("fault_worker"), "concurrency": 1}}, lease="1s")
    job = db.enqueue("ok" if kind != "preload" else "facts", queue="mail")
    completed(db, job)
    running = [db.enqueue("sleep", '{"ms": 1500}', queue="mail") for _ in range(2)] if kind != "preload" else []
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs WHERE state = 'executing'") == len(running))
    db.value("SELECT jobq.scale('mail', 0)")
    node.wait_log("queue mail: number of workers scaled from 2 to 0")
    for job in running:
        completed(db, job)
    waiting = [db.enqueue("ok" if kind != "preload" else "facts", queue="mail") for _ in range(20)]
    waits_untouched(db, waiting[0])
    assert db.value("SELECT max(attempt) FROM jobq.jobs") == 0
    wait_for(lambda: db.value("SELECT (queues #>> '{mail,wanted}')::int + (queues #>> '{mail,ready}')::int FROM jobq.nodes") == 0)
    node.stop()
    node.start()  # it keeps
    waits_untouched(db, waiting[0])
    db.value("SELECT jobq.scale('mail', NULL)")
    for job in waiting:
        completed(db, job)
    assert db.query("SELECT DISTINCT attempt, errors FROM jobq.finished_jobs") == [(1, [])]


def test_what_waits_in_the_daemon_when_the_last_worker_goes_is_given_back(db, jobqd, programs, tmp_path):
    """Claimed ahead, with nobody left to do it: another node shall."""
    node = jobqd(db, {"mail": {"command": programs("fault_worker"), "concurrency": 2}}, lease="1s")
    long = db.enqueue("sleep", json.dumps({"ms": 4000, "file": f"{tmp_path}/long"}), queue="mail")
    wait_for((tmp_path / "long").exists)
    ids = [db.enqueue("sleep", '{"ms": 20}', queue="mail") for _ in range(400)]
    wait_for(lambda: db.states().get("completed", 0) >= 20, what=db.states)
    db.value("SELECT jobq.scale('mail', 0)")
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs WHERE state = 'executing' AND id <> %s", (long,)) == 0,
             what=db.states)
    assert db.value("SELECT count(*) FROM jobq.jobs WHERE state = 'available'") > 0
    db.value("SELECT jobq.scale('mail', 3)")
    wait_all_finished(db, len(ids) + 1)
    assert db.query("SELECT DISTINCT state::text, attempt, errors FROM jobq.finished_jobs") == [("completed", 1, [])]
    assert node.running


def wanted(db, node="node1"):
    return db.value("SELECT (queues #>> '{mail,wanted}')::int FROM jobq.nodes WHERE name = %s", (node,))


def wait_wanted(db, n, node="node1"):
    wait_for(lambda: wanted(db, node) == n, what=lambda: f"{n} workers to be wanted: {wanted(db, node)}")


def test_what_wins_of_file_signal_cluster_and_node(db, jobqd, worker):
    """The node's own row, then the cluster's, then the file; TTIN and TTOU count until any of them says something new."""
    node = jobqd(db, worker, lease="1s")
    wait_wanted(db, 2)
    db.value("SELECT jobq.scale('mail', 5)")
    wait_wanted(db, 5)
    node.signal(signal.SIGTTIN)
    wait_wanted(db, 6)
    worker["mail"]["concurrency"] = 3
    node.reload(worker)
    wait_wanted(db, 5)
    db.value("SELECT jobq.scale('mail', 7, 'node1')")
    wait_wanted(db, 7)
    db.value("SELECT jobq.scale('mail', 4)")
    looks_of_the_steward(db)
    assert wanted(db) == 7
    node.signal(signal.SIGTTOU)
    wait_wanted(db, 6)
    node.signal(signal.SIGUSR2)
    node.wait_log("took over from jobqd")
    looks_of_the_steward(db)
    assert wanted(db) == 6 and "scaled from" not in node.log().split("took over from jobqd")[1]
    db.value("SELECT jobq.scale('mail', 1, 'node1')")
    wait_wanted(db, 1)
    db.value("SELECT jobq.scale('mail', NULL, 'node1')")
    wait_wanted(db, 4)
    db.value("SELECT jobq.scale('mail', 9, 'node1')")
    wait_wanted(db, 9)
    assert db.value("SELECT jobq.scale('mail', NULL)") is True
    wait_wanted(db, 3)
    assert db.value("SELECT jobq.scale('mail', NULL)") is False


def test_scaled_during_an_upgrade_in_place(db, jobqd, worker, tmp_path):
    """The workers that were added stay the same processes."""
    node = jobqd(db, worker, lease="6s")
    db.value("SELECT jobq.scale('mail', 6)")
    wait_workers(node, 7)
    before = set(node.workers())
    node.signal(signal.SIGUSR2)
    node.wait_log("took over from jobqd")
    looks_of_the_steward(db)
    assert set(node.workers()) == before and wanted(db) == 6


def test_each_of_two_nodes_has_as_many(db, jobqd, worker):
    for _ in range(2):
        jobqd(db, worker, lease="1s")
    db.value("SELECT jobq.scale('mail', 3)")
    db.value("SELECT jobq.scale('mail', 1, 'node2')")
    wait_wanted(db, 3, "node1")
    wait_wanted(db, 1, "node2")


# ---- SQL: what is set, what is refused ----

def test_whether_something_has_changed(db):
    calls = [("pause('q')", True), ("pause('q')", False), ("pause('q', 'n')", True), ("pause('q', 'n')", False),
             ("scale('q', 3)", True), ("scale('q', 3)", False), ("scale('q', 3, 'n')", True), ("scale('q', 3, 'n')", False),
             ("resume('q')", True), ("resume('q')", False), ("resume('q', 'n')", False), ("scale('q', NULL, 'm')", False),
             ("scale('q', NULL, 'n')", True), ("scale('q', NULL)", True), ("scale('q', NULL)", False), ("resume('x')", False)]
    assert [db.value(f"SELECT jobq.{call}") for call, _ in calls] == [changed for _, changed in calls]
    assert db.query("SELECT name, paused, concurrency FROM jobq.queues") == [("q", False, None)]
    assert db.query("SELECT * FROM jobq.queue_nodes") == []


def test_nodes_are_told_once_a_change(db):
    with db.connect() as listener:
        listener.execute("LISTEN jobq")
        for call in ("pause('q')", "pause('q')", "resume('q')", "scale('q', 2)", "scale('q', 2)"):
            db.value(f"SELECT jobq.{call}")
        db.query("SELECT pg_notify('jobq', 'end')")
        heard = []
        for notification in listener.notifies():
            heard.append(notification.payload)
            if heard[-1] == "end":
                break
    assert heard == ["queues", "queues", "queues", "end"]


LONG = "q" * 129
QUEUE = "queue must be text of 1 to 128 bytes, got "
NODE = "node must be null or 1 to 128 letters, digits and . _ - : @, got "
BAD = [
    ("pause(NULL)", "jobq.pause: " + QUEUE + "null"),
    ("pause('')", "jobq.pause: " + QUEUE + '""'),
    (f"pause('{LONG}')", "jobq.pause: " + QUEUE + '"' + LONG[:59] + "... (129 bytes)"),
    ("pause('q', '')", "jobq.pause: " + NODE + '""'),
    ("pause('q', 'a b')", "jobq.pause: " + NODE + '"a b"'),
    ("pause('q', E'a\\n')", "jobq.pause: " + NODE + '"a\\n"'),
    ("resume(NULL)", "jobq.resume: " + QUEUE + "null"),
    ("resume('q', 'ö')", "jobq.resume: " + NODE + '"ö"'),
    ("scale(NULL, 1)", "jobq.scale: " + QUEUE + "null"),
    ("scale('q', -1)", "jobq.scale: n must be null or 0 to 1000, got -1"),
    ("scale('q', 1001)", "jobq.scale: n must be null or 0 to 1000, got 1001"),
    ("scale('q', 1, 'a/b')", "jobq.scale: " + NODE + '"a/b"'),
]


@pytest.mark.parametrize("call,message", BAD, ids=[call for call, _ in BAD])
def test_what_is_refused(db, call, message):
    with pytest.raises(InvalidParameterValue) as refused:
        db.value(f"SELECT jobq.{call}")
    assert refused.value.diag.message_primary == message
    assert db.query("SELECT * FROM jobq.queues") == [] and db.query("SELECT * FROM jobq.queue_nodes") == []


def test_one_node_of_a_queue_that_is_paused_on_all(db):
    db.value("SELECT jobq.pause('q')")
    with pytest.raises(ObjectNotInPrerequisiteState) as refused:
        db.value("SELECT jobq.resume('q', 'n')")
    assert refused.value.diag.message_primary == \
        "jobq.resume: queue q is paused on all nodes: resume it without naming a node, then pause it on single nodes"


def test_who_may(db):
    for role, may in (("jobq_operator", True), ("jobq_viewer", False), ("jobq_enqueuer", False)):
        for call in ("pause('q')", "resume('q')", "scale('q', 1)"):
            with db.connect(autocommit=False) as conn:
                conn.execute(f"SET ROLE {role}")
                if may:
                    conn.execute(f"SELECT jobq.{call}")
                else:
                    with pytest.raises(InsufficientPrivilege):
                        conn.execute(f"SELECT jobq.{call}")
                conn.rollback()
    for role in ("jobq_operator", "jobq_viewer"):
        with db.connect() as conn:
            conn.execute(f"SET ROLE {role}")
            conn.execute("SELECT * FROM jobq.queue_nodes")


# ---- the command line ----

def test_the_commands(cli, db):
    def say(*args, **more):
        return cli(*args, db=db, **more).stdout
    nobody = "; none of them serves it now\n"
    assert say("pause", "mail", "sms") == f"queue mail: paused on all nodes{nobody}queue sms: paused on all nodes{nobody}"
    assert say("pause", "mail") == f"queue mail: already paused on all nodes{nobody}"
    assert say("pause", "mail", "--node", "web-1") == "queue mail: paused on node web-1, which does not serve it now\n"
    assert say("scale", "mail", "8") == f"queue mail: 8 workers on each node{nobody}"
    assert say("scale", "mail", "1", "--node", "web-1") == "queue mail: 1 worker on node web-1, which does not serve it now\n"
    with db.connect() as conn:
        conn.execute("INSERT INTO jobq.nodes (name, host, pid, pid_start, version, expires_at, queues) VALUES"
                     " ('web-1', 'h', 1, 1, '0', now() + interval '1 hour', '{\"mail\": {\"wanted\": 1, \"ready\": 1}}')")
    table = cli("queues", db=db).stdout.splitlines()
    assert [cell.strip() for cell in table[1].split("  ") if cell.strip()] == \
        ["mail", "1", "1/1", "0", "0", "0", "all", "8, web-1: 1", "0", "0", "0", "0", "0"]
    assert [cell.strip() for cell in table[2].split("  ") if cell.strip()][:3] == ["sms", "0", "-"]
    mail, sms = json.loads(say("queues", "--json"))["queues"]
    assert (mail["paused"], mail["paused_nodes"], mail["scale"], mail["scale_nodes"]) == (True, ["web-1"], 8, {"web-1": 1})
    assert (sms["paused"], sms["paused_nodes"], sms["scale"], sms["scale_nodes"]) == (True, [], None, {})
    assert say("resume", "mail") == "queue mail: resumed on all nodes\n"
    assert say("scale", "mail", "default") == "queue mail: as many workers as configured on each node\n"
    assert say("scale", "mail", "default") == "queue mail: already as many workers as configured on each node\n"
    assert json.loads(say("resume", "sms", "mail", "--json")) == {"changed": ["sms"], "unchanged": ["mail"]}
    assert json.loads(say("scale", "mail", "0", "--json")) == {"changed": ["mail"], "unchanged": []}
    assert [queue["queue"] for queue in json.loads(say("queues", "--json"))["queues"]] == ["mail"]


def test_one_that_is_refused_does_not_keep_the_others_from_it(cli, db):
    done = cli("pause", "", "mail", db=db, code=65)
    assert done.stdout == "queue mail: paused on all nodes; none of them serves it now\n"
    assert done.stderr == 'jobqd pause: queue must be text of 1 to 128 bytes, got ""\n'
    done = cli("resume", "mail", "--node", "a", db=db, code=65)
    assert done.stderr == "jobqd resume: queue mail is paused on all nodes: resume it without naming a node, then " \
                          "pause it on single nodes\n"


@pytest.mark.parametrize("n", ["", "-1", "1001", "4x", "many", " 4", "99999999999999999999"])
def test_a_number_that_is_none(cli, db, n):
    done = cli("scale", "--database", db.uri, "--", "mail", n, code=64)
    assert done.stderr == f'jobqd scale: "{n}" is not allowed: 0 to 1000, or default\n'


def test_doctor_tells_of_jobs_that_wait_on_purpose(cli, db, jobqd, worker):
    jobqd(db, worker)
    for call in ("pause('mail')", "scale('other', 0, 'node1')"):
        db.value(f"SELECT jobq.{call}")
    wait_for(lambda: db.value("SELECT (queues #>> '{other,wanted}') = '0' FROM jobq.nodes"))
    for queue in ("mail", "other"):
        db.enqueue("ok", queue=queue)
    said = [entry for entry in json.loads(cli("doctor", "--json", db=db, code=None).stdout)["findings"]
            if entry["check"] == "queues"]
    assert [entry["level"] for entry in said] == ["ok", "ok"]
    assert {entry["found"].split(" since ")[0] for entry in said} == {
        "jobs are waiting in queue mail, which has been paused on all nodes",
        "jobs are waiting in queue other, which has been scaled to no workers on node node1"}


# ---- ageing ----

@pytest.fixture
def aged(programs, ledger):
    """A queue with one worker, that does fifty jobs a second at most; and no fewer come."""
    def queue(ageing):
        return {"mail": {"command": ledger.command(programs("ledger_worker"), 20_000, 20_000), "concurrency": 1,
                         "ageing": ageing}}
    return queue


def keep_saturated(db, ids):
    """Jobs of priority 0 without end: there are always some that wait."""
    if db.value("SELECT count(*) FROM jobq.jobs WHERE state = 'available' AND priority = 0") < 50:
        ids += enqueue_crowd(db, 100, queue="mail")


def test_with_ageing_the_last_priority_is_not_starved(db, jobqd, aged):
    """A stream of priority 0 that never ends: without ageing a job of priority 3 does not run in it, with it within four
    steps. In the same stream: the option is changed by a reload."""
    ids = []
    keep_saturated(db, ids)
    node = jobqd(db, aged("0"), lease="1s")
    late = db.enqueue("work", queue="mail", priority=3)
    state = "SELECT state::text FROM jobq.all_jobs WHERE id = %s"
    began = db.value("SELECT clock_timestamp()")

    def eight_seconds_later():
        keep_saturated(db, ids)
        return db.value("SELECT clock_timestamp() > %s + interval '8 seconds'", (began,))
    wait_for(eight_seconds_later)
    assert db.value(state, (late,)) == "available"

    log = node.reload(aged("1s"))
    assert "queue mail: changed: ageing" in log
    late_again = db.enqueue("work", queue="mail", priority=3)

    def both_done():
        keep_saturated(db, ids)
        return {db.value(state, (late,)), db.value(state, (late_again,))} == {"completed"}
    wait_for(both_done)
    waited = dict(db.query("SELECT id, extract(epoch FROM attempted_at - inserted_at) FROM jobq.finished_jobs WHERE priority = 3"))
    print(f"priority 3, waited: {waited[late]} s with ageing for the last, {waited[late_again]} s")
    # The first one had waited for long, and the reload knew it. The fresh ones that the second one overtook have waited for
    # up to three seconds themselves.
    assert 8 < waited[late] < waited[late_again] + 8
    assert 2 < waited[late_again] < 20
    assert db.value("SELECT count(*) FROM jobq.jobs WHERE state = 'available' AND priority = 0") > 0


def test_what_has_waited_longest_is_handed_over_first(db, jobqd, aged, ledger):
    """Of one claim, in the order of ranks: what waited before jobqd was there counts as old as it is."""
    old = db.enqueue("work", queue="mail", priority=9)
    db.query("UPDATE jobq.jobs SET inserted_at = now() - interval '1 hour', scheduled_at = now() - interval '1 hour'")
    fresh = [db.enqueue("work", queue="mail", priority=priority) for priority in (5, 0, 0, 2)]
    db.value("SELECT jobq.pause('mail')")
    jobqd(db, aged("1m"), lease="1s")
    looks_of_the_steward(db, 2)
    db.value("SELECT jobq.resume('mail')")
    wait_all_finished(db, 5)
    assert [run.job for run in ledger.read().runs] == [old, fresh[1], fresh[2], fresh[3], fresh[0]]


def test_without_ageing_the_priority_alone_counts(db, jobqd, aged, ledger):
    old = db.enqueue("work", queue="mail", priority=9)
    db.query("UPDATE jobq.jobs SET inserted_at = now() - interval '1 hour', scheduled_at = now() - interval '1 hour'")
    fresh = [db.enqueue("work", queue="mail", priority=priority) for priority in (5, 0, 2)]
    jobqd(db, aged("0"), lease="1s")
    wait_all_finished(db, 4)
    assert [run.job for run in ledger.read().runs] == [fresh[1], fresh[2], fresh[0], old]


def test_with_ageing_no_job_is_left_behind(db, jobqd, programs, ledger):
    """All priorities, two nodes, transactions that commit late or roll back: each job runs once."""
    queue = {"mail": {"command": ledger.command(programs("ledger_worker"), 0, 500), "concurrency": 4, "ageing": "1s"}}
    for _ in range(2):
        jobqd(db, queue, lease="2s")
    ids = []
    open_ones = [(db.connect(autocommit=False), []) for _ in range(4)]
    try:
        for round in range(80):
            conn, mine = open_ones[round % 4]
            if round % 3 == 0:  # late: three others have enqueued and committed meanwhile
                conn.commit()
                ids += mine
                mine.clear()
            elif round % 7 == 0:
                conn.rollback()
                mine.clear()
            mine += [row[0] for row in conn.execute(
                "SELECT jobq.enqueue('work', queue => 'mail', priority => (random() * 9)::int) FROM generate_series(1, 25)")]
            wait_ended(ledger, len(ids) * 9 // 10)
    finally:
        for conn, mine in open_ones:
            conn.commit()
            ids += mine
            conn.close()
    wait_all_finished(db, len(ids))
    runs = ledger.read().by_job()
    assert sorted(runs) == sorted(ids) and {len(of_job) for of_job in runs.values()} == {1}


@pytest.mark.parametrize("settings", [{}, {"enable_indexscan": "off", "enable_nestloop": "off", "enable_tidscan": "off",
                                           "join_collapse_limit": "1", "from_collapse_limit": "1", "random_page_cost": "1000"}],
                         ids=["", "a database with other plans in mind"])
def test_the_claim_by_age_reads_the_index_alone(db, settings):
    """The plan of the work connection, made while the table is empty, for 100,000 jobs of which ten are wanted."""
    for name, value in settings.items():
        db.query(f'ALTER DATABASE "{db.name}" SET {name} = {value}')
    claim = statement("claim_aged", limit=64, whole=8192)
    with db.connect() as conn:
        conn.execute(statement("work_setup"))
        conn.execute("INSERT INTO jobq.nodes (name, host, pid, pid_start, version, expires_at) VALUES ('n', 'h', 1, 1, '0', now())")
        node = conn.execute("SELECT id FROM jobq.nodes").fetchone()[0]
        conn.execute(f"PREPARE claim AS {claim}")
        run = (f"EXECUTE claim ('mail', '{{0,0,500}}', {node}, 0, '{{9,0,9}}', '{{500,9223372036854775807,9223372036854775807}}')")
        conn.execute(run)
        enqueue_crowd(db, 100_000, queue="mail", priority=9)
        conn.execute("BEGIN")
        plan = "\n".join(row[0] for row in conn.execute("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) " + run).fetchall())
        conn.execute("ROLLBACK")
        rows = conn.execute(run).fetchall()
    assert "Index Scan using jobs_claim" in plan and "Seq Scan on jobs" not in plan, plan
    assert '("position" > segments.after) AND ("position" <= segments.upto)' in plan.replace("l.", ""), plan
    assert {row[2] for row in rows} == {9} and len(rows) == 64


def test_the_two_claims_differ_in_their_walk_alone():
    """claim_aged is claim but for the lines that say where it walks."""
    plain, aged = ([line for line in statement(name).splitlines() if not line.startswith("--")] for name in ("claim", "claim_aged"))
    assert len(plain) == len(aged)
    differing = [(one.strip(), other.strip()) for one, other in zip(plain, aged) if one != other]
    assert differing == [
        ("CROSS JOIN unnest($2::bigint[]) WITH ORDINALITY AS cursors (after, nth)",
         "CROSS JOIN unnest($5::int[], $2::bigint[], $6::bigint[]) AS segments (priority, after, upto)"),
        ("WHERE l.queue = $1 AND l.priority = (cursors.nth - 1)::smallint",
         "WHERE l.queue = $1 AND l.priority = segments.priority::smallint"),
        ("AND l.position > cursors.after",
         "AND l.position > segments.after AND l.position <= segments.upto")]
