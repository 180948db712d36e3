"""The database crashes and comes back while jobs run: what was committed is there, what was not confirmed is
said again, and nothing is run twice for it."""

import random

from harness.crowd import check_completed, enqueue_crowd, wait_all_finished, wait_ended, watch_nodes

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
        node.wait_log("lost: the lease could not be renewed")
    cluster.start()
    db.close()
    wait_all_finished(db, 100)
    assert set(check_completed(db, ledger, ids)) == {"orphaned"}
    assert all(node.running for node in nodes)
