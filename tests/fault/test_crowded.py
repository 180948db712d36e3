"""A hundred queues on a machine with little to give: the lease is kept, and no job is charged that had no process."""

import re

import pytest

from harness.crowd import wait_all_finished, watch_nodes
from harness.throttle import Throttle
from harness.waiting import wait_for

QUEUES = 100


def enqueue_to_all(db, n):
    """n jobs for each queue, q0 and so on."""
    db.query("SELECT count(jobq.enqueue('work', queue => 'q' || i)) FROM generate_series(0, %s - 1) i, generate_series(1, %s)",
             (QUEUES, n))


def check_kept(db, node):
    """One lease from the first job to the last, and each job was run once."""
    log = node.log()
    stood = [float(seconds) for seconds in re.findall(r"the event loop was blocked for ([0-9.]+) s", log)]
    print(f"the event loop was blocked for {max(stood, default=0)} s at most")
    assert "guard: killed" not in log and " must stop its jobs: " not in log
    assert db.query("SELECT count(*) FROM public.seen_nodes") == [(1,)]
    assert db.query("SELECT attempt, state::text, errors, count(*) FROM jobq.finished_jobs GROUP BY 1, 2, 3")[0][:3] == \
        (1, "completed", [])


@pytest.fixture
def slow_forks(programs):
    """Each process takes 10 ms more to be started."""
    return {"LD_PRELOAD": programs("libslow_fork.so"), "SLOW_FORK_MS": "10"}


def test_a_hundred_exec_queues_take_turns(db, jobqd, slow_forks):
    """At once 400 processes are to be started, and then one for each that ends: 4 s of it in a lease of 3."""
    watch_nodes(db)
    queues = {f"q{i}": {"exec": "/bin/sleep 0.2", "concurrency": 4} for i in range(QUEUES)}
    node = jobqd(db, queues, env=slow_forks, lease="3s")
    enqueue_to_all(db, 8)
    wait_all_finished(db, QUEUES * 8)
    check_kept(db, node)


def test_a_quarter_of_a_processor_is_enough(db, jobqd):
    watch_nodes(db)
    queues = {f"q{i}": {"exec": "/bin/true", "concurrency": 4} for i in range(QUEUES)}
    node = jobqd(db, queues, lease="5s")
    with Throttle(node.pid, 0.25):
        enqueue_to_all(db, 10)
        wait_all_finished(db, QUEUES * 10)
    check_kept(db, node)


def test_few_jobs_are_claimed_before_they_can_be_started(db, jobqd, slow_forks):
    """Where starts are slow, a node that is lost has few that it never started."""
    queues = {f"q{i}": {"exec": "/bin/sleep 1000", "concurrency": 50} for i in range(QUEUES)}
    node = jobqd(db, queues, env={**slow_forks, "SLOW_FORK_MS": "100"}, lease="60s")
    enqueue_to_all(db, 50)
    most = 0

    def thirty_run():
        nonlocal most
        claimed = db.value("SELECT count(*) FROM jobq.jobs WHERE state = 'executing'")
        running = len(node.workers())
        most = max(most, claimed - running)
        return running >= 30
    wait_for(thirty_run)
    print(f"{most} jobs at most were claimed and had no process yet")
    assert most <= 4 * QUEUES  # of 5000
    assert node.stop_at_once() == 0
    assert db.query("SELECT attempt, state::text, count(*) FROM jobq.all_jobs GROUP BY 1, 2") == \
        [(0, "available", QUEUES * 50)]  # released, not counted


def test_workers_of_a_hundred_queues_do_not_boot_all_at_once(db, jobqd, programs, tmp_path):
    """They need, one after the other, 50 ms of something that there is only one of: all at once, the last one would have it
    after 20 s, beyond its boot_timeout."""
    program = tmp_path / "boot.sh"
    program.write_text(f"#!/bin/sh\nexec 9>{tmp_path}/one\nflock 9\nsleep 0.05\nexec 9>&-\nexec {programs('noop_worker')}\n")
    program.chmod(0o755)
    queues = {f"q{i}": {"command": program, "concurrency": 4, "boot_timeout": "10s"} for i in range(QUEUES)}
    node = jobqd(db, queues, lease="15s")
    wait_for(lambda: node.log().count("ready after") == 4 * QUEUES, 120,
             what=lambda: f"all workers to be up, {node.log().count('ready after')} are")
    assert "did not start" not in node.log()


def test_a_program_that_never_says_hello_holds_up_no_other_queue(db, jobqd, programs):
    hung = {f"hung{i}": {"command": f"{programs('rude_worker')} silent", "concurrency": 10, "boot_timeout": "1h"} for i in range(20)}
    jobqd(db, {**hung, "q0": {"command": programs("noop_worker"), "concurrency": 4}}, lease="15s")
    db.enqueue("noop", queue="q0")
    wait_all_finished(db, 1, timeout=60)


def test_a_hundred_queues_are_reloaded_and_killed_in_turns(db, jobqd, programs, slow_forks):
    watch_nodes(db)
    queues = {f"q{i}": {"command": programs("noop_worker"), "concurrency": 2} for i in range(QUEUES)}
    node = jobqd(db, queues, env=slow_forks, lease="3s")
    wait_for(lambda: node.log().count("ready after") == 2 * QUEUES, 120)
    before = set(node.workers())
    node.reload()
    wait_for(lambda: not before & set(node.workers()) and len(node.workers()) == 2 * QUEUES, 120, what="each worker to be replaced")
    enqueue_to_all(db, 2)
    wait_all_finished(db, 2 * QUEUES)
    check_kept(db, node)
    assert node.stop_at_once() == 0
