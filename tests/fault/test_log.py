"""Whoever reads the log stands still, goes away, or has no room: jobqd goes on as if it were read, and says later what was
lost."""

import re
import signal

import pytest

from harness.crowd import enqueue_crowd, watch_nodes
from harness.daemon import processes_with
from harness.reader import KINDS, Reader
from harness.waiting import wait_for

LOST = r"WARNING log: \d+ lines were lost since \S+Z: stderr was not read"


@pytest.fixture
def reader(request):
    made = Reader(getattr(request, "param", "pipe"))
    yield made
    if made.ours is not None:
        made.close()


def renewals(db, n):
    """Waits until the lease was renewed n times more."""
    for _ in range(n):
        before = db.value("SELECT max(renewed_at) FROM jobq.nodes")
        wait_for(lambda: db.value("SELECT max(renewed_at) FROM jobq.nodes") != before, what="the lease to be renewed")


def completed(db, n):
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE state = 'completed' AND attempt = 1") == n, 120,
             what=lambda: f"{n} jobs to complete at once: {db.states()}")


def loud(programs):
    return {"default": {"command": programs("fault_worker"), "concurrency": 2},
            "loud": {"command": programs("rude_worker"), "concurrency": 2}}


def stand_still(db, reader):
    """The reader does, and there is more to read than fits before it."""
    reader.pause()
    db.enqueue("flood", queue="loud")
    wait_for(reader.is_full, what="the log to be full")


@pytest.mark.parametrize("reader", list(KINDS), indirect=True)
def test_nothing_waits_for_whoever_reads_the_log(db, jobqd, programs, reader):
    watch_nodes(db)
    # 500 lines a second and worker go to the log: of all of these, more than the buffer holds.
    crowd = {"exec": f"/bin/sh -c 'yes {250 * 'y'} | head -c 1000000'", "concurrency": 20}
    node = jobqd(db, {**loud(programs), "crowd": crowd}, lease="2s", log_level="debug", output=reader)
    stand_still(db, reader)
    enqueue_crowd(db, 60, queue="crowd")
    enqueue_crowd(db, 300, kind="stderr")
    completed(db, 361)
    renewals(db, 4)
    reader.resume()
    node.wait_log(LOST)
    node.signal(signal.SIGUSR1)
    node.wait_log("INFO jobqd: node ")
    job = db.enqueue("stderr")
    node.wait_log(f"job {job} says: ")  # it is read as before
    assert node.stop() == 0
    assert db.query("SELECT count(*) FROM public.seen_nodes") == [(1,)], "the lease was lost"
    lines = node.log().replace("\r", "").split("\n")[:-1]
    whole = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR) \S")
    assert [line for line in lines if not whole.match(line)] == []
    stamps = [line[:24] for line in lines if " log: " not in line]
    assert stamps == sorted(stamps), "lines have changed places"


def test_it_ends_while_nobody_reads_the_log(db, jobqd, programs, reader):
    node = jobqd(db, loud(programs), lease="2s", log_level="debug", output=reader)
    job = db.enqueue("sleep", '{"ms": 500}')
    stand_still(db, reader)
    assert node.stop() == 0
    assert db.value("SELECT state::text FROM jobq.finished_jobs WHERE id = %s", (job,)) == "completed"
    assert db.query("SELECT count(*) FROM jobq.nodes") == [(0,)]


def test_a_reload_and_an_upgrade_go_on_while_nobody_reads_the_log(db, jobqd, programs, reader):
    node = jobqd(db, loud(programs), lease="4s", log_level="debug", output=reader)
    pid, row = node.pid, db.query("SELECT id FROM jobq.nodes")
    stand_still(db, reader)
    workers = set(node.workers())
    node.signal(signal.SIGHUP)
    wait_for(lambda: len(node.workers()) == 4 and not workers & set(node.workers()), what="each worker to be replaced")
    workers = set(node.workers())
    completed(db, 1)
    node.signal(signal.SIGUSR2)
    assert wait_for(lambda: db.value("SELECT upgrade FROM jobq.nodes"))["error"] is None
    assert node.pid == pid and db.query("SELECT id FROM jobq.nodes") == row
    assert workers <= set(node.workers())
    reader.resume()
    node.wait_log("upgrade: jobqd .* took over from jobqd")
    node.wait_log(r"WARNING log: \d+ lines? w[aser]+ lost since")
    db.enqueue("ok")
    completed(db, 2)


def test_the_guard_does_not_wait_for_it_either(db, jobqd, programs, reader):
    """It kills in time, also a second time, and ends."""
    node = jobqd(db, loud(programs), lease="2s", output=reader)
    stand_still(db, reader)
    completed(db, 1)
    up, last = "SELECT max(id) FROM jobq.nodes WHERE id > %s AND queues -> 'loud' ->> 'ready' = '2'", 0
    for _ in range(2):
        # As a new node: one that is lost, and not registered again, has no lease that could end.
        last = wait_for(lambda: db.value(up, [last]), what=lambda: f"the workers to be up: {db.query('SELECT * FROM jobq.nodes')}")
        workers = set(node.workers())
        node.signal(signal.SIGSTOP)
        try:
            wait_for(lambda: not workers & set(processes_with(node.token)), what="the guard to kill the workers")
        finally:
            node.signal(signal.SIGCONT)
    node.kill()
    wait_for(lambda: not processes_with(node.token), what="the guard to end")


def test_a_reader_that_went_away_is_not_missed(db, jobqd, programs, reader):
    node = jobqd(db, loud(programs), lease="2s", output=reader)
    reader.close()
    reader.ours = None
    enqueue_crowd(db, 100, kind="stderr")
    completed(db, 100)
    renewals(db, 3)
    assert node.stop() == 0


def test_a_full_disk_behind_the_log_is_not_waited_for(db, jobqd, programs):
    with open("/dev/full", "wb") as full:
        node = jobqd(db, loud(programs), lease="2s", ready=False, output=lambda log: full)
        enqueue_crowd(db, 100, kind="stderr")
        completed(db, 100)
        renewals(db, 3)
        assert node.stop() == 0
