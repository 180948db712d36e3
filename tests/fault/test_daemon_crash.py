"""kill -9 of jobqd, again and again, on two nodes: its workers die with it, and its jobs are done by whoever comes."""

import random
import signal

from harness.crowd import check_completed, enqueue_crowd, wait_all_finished, wait_ended, watch_nodes
from harness.waiting import wait_for

JOBS = 20_000
KILLS = 20


def test_20000_jobs_on_two_nodes_while_jobqd_is_killed_20_times(db, jobqd, programs, ledger):
    watch_nodes(db)
    queue = {"default": {"command": ledger.command(programs("ledger_worker"), 100, 1500), "concurrency": 4}}
    nodes = [jobqd(db, queue, lease="2s"), jobqd(db, queue, lease="2s")]
    ids = enqueue_crowd(db, JOBS)
    for threshold in sorted(random.sample(range(JOBS // 100, JOBS * 9 // 10), KILLS)):
        wait_ended(ledger, threshold)
        node = random.choice(nodes)
        node.kill()
        node.start(ready=False)
        node.expected_exit = 0
    wait_all_finished(db, JOBS)

    kinds = check_completed(db, ledger, ids)
    assert set(kinds) <= {"orphaned"}, kinds
    cut_short = sum(1 for run in ledger.runs if run.end_ns is None)
    print(f"{KILLS} kills: {len(ledger.workers)} worker processes, {cut_short} runs cut short, {kinds['orphaned']} attempts orphaned")
    assert kinds["orphaned"] >= cut_short > 0
    # That no process is left is looked at when the fixture ends; each node must be the one started last.
    for node in nodes:
        node.wait_ready()


def test_a_node_that_never_comes_back_is_buried_by_the_other(db, jobqd, programs, ledger):
    watch_nodes(db)
    queue = {"default": {"command": ledger.command(programs("ledger_worker"), 2000, 20_000), "concurrency": 2}}
    victim, survivor = jobqd(db, queue, lease="1s"), jobqd(db, queue, lease="1s")
    ids = enqueue_crowd(db, 400)
    wait_ended(ledger, 100)
    victim.kill()
    wait_all_finished(db, 400)
    kinds = check_completed(db, ledger, ids)
    assert set(kinds) == {"orphaned"}
    errors = db.query("SELECT e FROM jobq.finished_jobs, jsonb_array_elements(errors) e")
    assert {entry["error"] for entry, in errors} == {"node node1 died while it held the job"}
    assert db.query("SELECT name FROM jobq.nodes") == [("node2",)]
    assert survivor.running


def test_an_orphan_without_attempts_left_is_discarded(db, jobqd, programs, ledger):
    node = jobqd(db, {"default": {"command": ledger.command(programs("ledger_worker"), 60_000_000, 60_000_000),
                                  "concurrency": 1}}, lease="1s")
    job = db.enqueue("work", max_attempts=1)
    wait_for(lambda: ledger.read().runs)
    node.kill()
    node.start()
    node.expected_exit = 0
    db.wait_for_states({"discarded": 1})
    (errors,), = db.query("SELECT errors FROM jobq.finished_jobs WHERE id = %s", (job,))
    assert [(error["attempt"], error["kind"]) for error in errors] == [(1, "orphaned")]


def test_the_one_that_keeps_house_dies(db, jobqd, programs):
    """Who stages and buries is the leader: another node takes that over, and a scheduled job starts all the same."""
    queue = {"default": {"command": programs("noop_worker"), "concurrency": 1}}
    nodes = [jobqd(db, queue, lease="1s"), jobqd(db, queue, lease="1s")]
    leads = "SELECT n.name FROM jobq._leader l JOIN jobq.nodes n ON n.id = l.node_id WHERE l.expires_at > clock_timestamp()"
    name = wait_for(lambda: db.value(leads))
    leader, = (node for node in nodes if node.folder.name == name)
    job = db.value("SELECT jobq.enqueue('noop', scheduled_at => clock_timestamp() + interval '1 s')")
    leader.kill()
    db.wait_for_states({"completed": 1})
    assert db.value("SELECT attempted_at >= scheduled_at FROM jobq.finished_jobs WHERE id = %s", (job,))
    assert wait_for(lambda: db.value(leads)) != name


def test_a_frozen_daemon_is_a_dead_one_and_its_answers_are_refused(db, jobqd, programs, ledger):
    """Stopped for longer than its lease (a paused virtual machine, say), it cannot kill its workers. The other node has
    its jobs by then, so what it answers when it is awake again must not count."""
    watch_nodes(db)
    queue = {"default": {"command": ledger.command(programs("ledger_worker"), 2_500_000, 2_600_000), "concurrency": 1}}
    frozen = jobqd(db, queue, lease="1s")
    job = db.enqueue("work")
    wait_for(lambda: ledger.read().runs)
    frozen.signal(signal.SIGSTOP)
    try:
        other = jobqd(db, queue, lease="1s")
        wait_for(lambda: ledger.read().ended >= 1 and len(ledger.runs) >= 2)
    finally:
        frozen.signal(signal.SIGCONT)
    # The frozen node's own run has ended first; its answer waits in the socket. It must not be taken.
    frozen.wait_log("must stop its jobs: ")
    db.wait_for_states({"completed": 1})
    rows = db.query("SELECT j.attempt, n.pid, j.errors -> 0 ->> 'kind' FROM jobq.finished_jobs j"
                    " JOIN public.seen_nodes n ON n.id = j.attempted_by WHERE j.id = %s", (job,))
    assert rows == [(2, other.pid, "orphaned")]
    assert [(run.attempt, run.worker.parent) for run in ledger.read().runs] == [(1, frozen.pid), (2, other.pid)]
    # It is back under a new id.
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.nodes") == 2)
    assert frozen.running
