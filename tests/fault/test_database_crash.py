"""The database crashes and comes back while jobs run: what was committed is there, what was not confirmed is
said again, and nothing is run twice for it."""

import json
import random
import threading

import psycopg
import pytest

from harness.crowd import check_completed, enqueue_crowd, wait_all_finished, wait_ended, watch_nodes
from harness.waiting import wait_for

JOBS = 20_000
CRASHES = 5


def test_20000_jobs_while_the_database_crashes_5_times(cluster, jobqd, programs, ledger):
    db = cluster.db
    watch_nodes(db)
    queue = {"default": {"command": ledger.command(programs("ledger_worker"), 100, 1500), "concurrency": 4}}
    # A lease that outlives all of it: with fsync on, the server's recovery may take seconds on a busy disk.
    nodes = [jobqd(db, queue, lease="120s"), jobqd(db, queue, lease="120s")]
    pids = [node.pid for node in nodes]
    ids = enqueue_crowd(db, JOBS)
    for threshold in sorted(random.sample(range(JOBS // 100, JOBS * 9 // 10), CRASHES)):
        wait_ended(ledger, threshold)
        cluster.stop("immediate")
        cluster.start()
        db.close()
    wait_all_finished(db, JOBS)

    kinds = check_completed(db, ledger, ids)
    # The jobs that ran went on, and not one attempt is lost.
    assert not kinds, kinds
    assert [node.pid for node in nodes] == pids and all(node.running for node in nodes)
    print(f"{CRASHES} crashes of the database: {len(ledger.runs)} runs for {JOBS} jobs")


def test_a_killed_postmaster_is_the_same(cluster, jobqd, programs, ledger):
    db = cluster.db
    watch_nodes(db)
    jobqd(db, {"default": {"command": ledger.command(programs("ledger_worker"), 100, 5000), "concurrency": 4}}, lease="120s")
    ids = enqueue_crowd(db, 2000)
    wait_ended(ledger, 500)
    cluster.kill()
    cluster.start()
    db.close()
    wait_all_finished(db, 2000)
    assert not check_completed(db, ledger, ids)


def test_a_lease_that_ends_while_the_database_is_down(cluster, jobqd, programs, ledger):
    """Down for longer than the lease: what was under way is given up before, and done again after."""
    db = cluster.db
    watch_nodes(db)
    queue = {"default": {"command": ledger.command(programs("ledger_worker"), 50_000, 150_000), "concurrency": 2}}
    nodes = [jobqd(db, queue, lease="1s"), jobqd(db, queue, lease="1s")]
    ids = enqueue_crowd(db, 100)
    wait_ended(ledger, 10)
    cluster.stop("immediate")
    for node in nodes:
        node.wait_log("must stop its jobs: the lease could not be renewed")
    cluster.start()
    db.close()
    wait_all_finished(db, 100)
    assert set(check_completed(db, ledger, ids)) == {"orphaned"}
    assert all(node.running for node in nodes)


ONCE = {"states": ["scheduled", "available", "executing", "retryable", "suspended", "completed", "cancelled", "discarded"],
        "keys": ["n"], "period": "infinity"}


@pytest.mark.limit(300)
def test_unique_jobs_said_again_after_a_crash_are_there_once(cluster, jobqd, programs, ledger):
    """Programs that say everything again until it is answered, as they should, of which several want the same jobs: whatever
    a crash left undecided, there is one job, done once, and every answer names it."""
    db, keys, programs_at_it = cluster.db, 600, 6
    jobqd(db, {"default": {"command": ledger.command(programs("ledger_worker"), 100, 1500), "concurrency": 4}}, lease="120s")
    answers, again = [], []

    def enqueue_all(i):
        conn = None
        for n in random.Random(i).sample(range(keys), keys):
            while True:
                try:
                    conn = conn or db.connect()
                    answers.append((n, *conn.execute("SELECT id, conflict FROM jobq.try_enqueue('work', %s::jsonb, unique_by => %s::jsonb)",
                                                     [json.dumps({"n": n}), json.dumps(ONCE)]).fetchone()))
                    break
                except psycopg.OperationalError:
                    again.append(n)
                    conn = None
    threads = [threading.Thread(target=enqueue_all, args=(i,), daemon=True) for i in range(programs_at_it)]
    for thread in threads:
        thread.start()
    for crash in range(3):
        wait_for(lambda at=(crash + 1) * keys * programs_at_it // 5: len(answers) > at)
        cluster.stop("immediate")
        cluster.start()
        db.close()
    for thread in threads:
        thread.join()
    wait_all_finished(db, keys)
    there = dict(db.query("SELECT (args ->> 'n')::int, id FROM jobq.finished_jobs WHERE state = 'completed'"))
    assert sorted(there) == list(range(keys))
    assert len(answers) == keys * programs_at_it and all(there[n] == job for n, job, _ in answers)
    assert sum(1 for _, _, conflict in answers if conflict is None) <= keys and again
    assert len(ledger.read().check_never_twice_at_once().by_job()) == keys
    print(f"{len(answers)} answers, {len(again)} said again; {sum(1 for a in answers if a[2] is None)} of {keys} were told that theirs is new")
