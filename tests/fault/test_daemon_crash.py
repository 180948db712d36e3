"""kill -9 of jobqd, again and again, on two nodes: its workers die with it, and its jobs are done by whoever comes."""

import random

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
    assert {entry["error"] for entry, in errors} == {"node node1 ended while it held the job"}
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
