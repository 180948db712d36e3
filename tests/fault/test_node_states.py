"""A node that is stopped past its lease, nodes in odd company, and a database that was set up by somebody with other ideas."""

import os
import signal

import pytest

from harness.crowd import check_completed, enqueue_crowd, wait_all_finished, watch_nodes
from harness.waiting import wait_for


def test_a_jobqd_stopped_past_its_lease_acknowledges_nothing_when_it_goes_on(db, jobqd, programs):
    sleeper = {"default": {"command": programs("fault_worker"), "concurrency": 1}}
    stopped = jobqd(db, sleeper, lease="1s")
    job = db.enqueue("sleep", '{"ms": 3000}')
    wait_for(lambda: db.states() == {"executing": 1})
    stopped.signal(signal.SIGSTOP)
    other = jobqd(db, sleeper, lease="1s")
    try:
        wait_for(lambda: db.value("SELECT attempt FROM jobq.jobs WHERE id = %s", (job,)) == 2)
    finally:
        stopped.signal(signal.SIGCONT)
    stopped.wait_log("must stop its jobs")
    wait_for(lambda: stopped.log().count("is registered as node") == 2)
    db.wait_for_states({"completed": 1})
    attempt, by, errors = db.query("SELECT attempt, attempted_by, errors FROM jobq.finished_jobs")[0]
    assert attempt == 2
    assert [entry["kind"] for entry in errors] == ["orphaned"]
    assert by == int(other.log().split("is registered as node ")[1].split(",")[0])
    assert stopped.running


@pytest.mark.parametrize("level", ["serializable", "repeatable read"])
def test_the_database_s_default_isolation_does_not_matter(db, jobqd, programs, ledger, level):
    watch_nodes(db)
    db.query(f"ALTER DATABASE {db.name} SET default_transaction_isolation = '{level}'")
    queue = {"default": {"command": ledger.command(programs("ledger_worker"), 100, 3000), "concurrency": 2}}
    victim, survivor = jobqd(db, queue, lease="1s"), jobqd(db, queue, lease="1s")
    ids = enqueue_crowd(db, 1500)
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs") >= 200)
    victim.kill()
    wait_all_finished(db, 1500)
    assert set(check_completed(db, ledger, ids)) <= {"orphaned"}
    assert "refused claims or answers" not in survivor.log()


def test_a_snapshot_held_open_holds_nobody_up(db, jobqd, programs):
    with db.connect(autocommit=False) as conn:
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        conn.execute("SELECT count(*) FROM jobq.jobs")
        jobqd(db, {"default": {"command": programs("noop_worker")}})
        db.query("INSERT INTO jobq.jobs (kind) SELECT 'noop' FROM generate_series(1, 20000)")
        db.wait_for_states({"completed": 20000})


def test_a_full_queue_does_not_hold_up_its_neighbours(db, jobqd, programs):
    worker = {"command": programs("fault_worker"), "concurrency": 1}
    jobqd(db, {"full": worker, "one": worker, "two": worker})
    for _ in range(5):
        db.enqueue("sleep", '{"ms": 600000}', queue="full")
    wait_for(lambda: db.states().get("executing") == 1)
    for n in range(200):
        db.enqueue("ok", queue=("one", "two")[n % 2])
    db.wait_for_states({"completed": 200, "executing": 1, "available": 4})
    db.query("SELECT jobq.cancel(id) FROM jobq.jobs WHERE state = 'available'")
    os.kill(db.value("SELECT pid FROM jobq.nodes"), signal.SIGTERM)
    os.kill(db.value("SELECT pid FROM jobq.nodes"), signal.SIGINT)
    wait_for(lambda: db.states() == {"completed": 200, "cancelled": 4, "available": 1})


def test_rows_that_somebody_deleted_by_hand_come_back(db, jobqd, programs):
    """The node's own row, the lead and the idle marks: jobs go on, under a new id."""
    node = jobqd(db, {"default": {"command": programs("noop_worker")}}, lease="1s")
    db.query("TRUNCATE jobq._idle, jobq._leader, jobq.nodes")
    node.wait_log("declared this node dead")
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.nodes") == 1)
    db.enqueue("noop")
    db.query("SELECT jobq.enqueue('noop', scheduled_at => now() + interval '300 milliseconds')")
    db.wait_for_states({"completed": 2})


def test_large_arguments_do_not_fill_the_daemon(db, jobqd, programs):
    node = jobqd(db, {"default": {"command": programs("noop_worker"), "concurrency": 2}})
    db.query("INSERT INTO jobq.jobs (kind, args) SELECT 'noop', jsonb_build_object('n', n, 'text', repeat('x', 2000000))"
             " FROM generate_series(1, 200) n")
    db.wait_for_states({"completed": 200})
    assert node.rss_kb() < 200_000
