"""A database that is away is a state: not there yet, a backend terminated, a network that hangs."""

import os
import random
import signal

import pytest

from faultproxy import FaultProxy
from harness.crowd import check_completed, enqueue_crowd, wait_all_finished, wait_ended, watch_nodes
from harness.ledger import boottime_ns
from harness.pg import SUPERUSER
from harness.waiting import wait_for


@pytest.fixture
def proxy(postgres):
    with FaultProxy(f"{postgres.dir}/.s.PGSQL.5432") as one:
        yield one


def through(proxy, db):
    """The database's address by way of the proxy."""
    return f"postgresql://{SUPERUSER}@127.0.0.1:{proxy.port}/{db.name}"


def test_jobqd_may_be_started_before_the_database(cluster, jobqd, programs):
    cluster.db.enqueue("noop")
    cluster.db.close()
    cluster.stop()
    node = jobqd(cluster.db, {"default": {"command": programs("noop_worker")}}, ready=False)
    node.wait_log("database: not reachable")
    cluster.start()
    node.wait_ready()
    cluster.db.wait_for_states({"completed": 1})
    assert "database: reached" in node.log()


def test_5000_jobs_while_the_work_connection_is_terminated_50_times(db, jobqd, programs, ledger):
    watch_nodes(db)
    node = jobqd(db, {"default": {"command": ledger.command(programs("ledger_worker"), 100, 2000), "concurrency": 4}})
    ids = enqueue_crowd(db, 5000)

    def terminate():
        return db.value("SELECT bool_or(pg_terminate_backend(pid)) FROM pg_stat_activity"
                        " WHERE application_name ~ 'work' AND datname = current_database()")

    for n in range(1, 51):
        wait_ended(ledger, n * 80)
        wait_for(terminate)
    wait_all_finished(db, 5000)
    kinds = check_completed(db, ledger, ids)
    assert not kinds, "the node has lost its lease, or an attempt was counted that never ran"
    assert node.running


def test_every_connection_terminated_again_and_again(db, jobqd, programs, ledger):
    watch_nodes(db)
    queue = {"default": {"command": ledger.command(programs("ledger_worker"), 100, 2000), "concurrency": 4}}
    nodes = [jobqd(db, queue), jobqd(db, queue)]
    ids = enqueue_crowd(db, 3000)
    for n in range(1, 11):
        wait_ended(ledger, n * 250)
        db.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                 " WHERE datname = current_database() AND pid <> pg_backend_pid()")
    wait_all_finished(db, 3000)
    assert not check_completed(db, ledger, ids)
    assert all(node.running for node in nodes)


def test_a_proxy_goes_silent_and_wakes_come_again(db, proxy, jobqd, programs):
    """The connection that listens has nothing to say, so only a question of its own shows that nobody is there any more."""
    node = jobqd(through(proxy, db), {"default": {"command": programs("noop_worker")}}, lease="3s", poll_interval="1h",
                 env={"JOBQ_TEST_PROBE_MS": "200"})

    def listeners():
        return [pid for pid, in db.query("SELECT pid FROM pg_stat_activity WHERE application_name = 'jobqd listen'"
                                         " AND datname = current_database()")]
    before = wait_for(listeners)
    proxy.half_open()
    wait_for(lambda: listeners() not in ([], before), what=lambda: f"jobqd to listen anew:\n{node.log()}")
    assert "lost the listening connection" in node.log()
    db.enqueue("noop")
    db.wait_for_states({"completed": 1})


def test_the_connection_breaks_at_any_byte(db, proxy, jobqd, programs, ledger):
    """In the middle of a claim's rows, of an ack, of the greeting: what is not known to be committed is said again."""
    watch_nodes(db)
    node = jobqd(through(proxy, db), {"default": {"command": ledger.command(programs("ledger_worker"), 100, 1000),
                                                  "concurrency": 4}}, lease="60s")
    ids = enqueue_crowd(db, 5000)
    for n in range(1, 31):
        wait_ended(ledger, n * 120)
        before = proxy.counts()["connections"]
        proxy.cut_after(random.randint(1, 30_000), random.choice(("up", "down", "both")), rst=random.random() < 0.5)
        wait_for(lambda: proxy.counts()["connections"] > before)
    wait_all_finished(db, 5000)
    assert not check_completed(db, ledger, ids)
    assert node.running


def test_the_server_s_host_is_gone_and_nobody_says_so(db, proxy, jobqd, programs, ledger):
    """Half-open connections, as after a power cut of the server's host. The control connection finds out first, and
    the work connection, which may wait a minute for an answer, is then not believed for so long."""
    watch_nodes(db)
    node = jobqd(through(proxy, db), {"default": {"command": ledger.command(programs("ledger_worker"), 100, 5000),
                                                  "concurrency": 4}}, lease="3s")
    ids = enqueue_crowd(db, 3000)
    wait_ended(ledger, 500)
    proxy.half_open()
    wait_all_finished(db, 3000, timeout=30)
    assert set(check_completed(db, ledger, ids)) <= {"orphaned"}
    assert node.running


def test_a_database_that_is_back_in_time_is_found_in_time(db, proxy, jobqd, programs):
    """The pauses between the tries to connect grow, but not so long that they cost the lease."""
    node = jobqd(through(proxy, db), {"default": {"command": programs("noop_worker")}}, lease="10s")
    for _ in range(2):
        renewed = db.value("SELECT renewed_at FROM jobq.nodes")
        proxy.refuse()
        proxy.cut()
        wait_for(lambda: db.value("SELECT expires_at < clock_timestamp() + interval '4 s' FROM jobq.nodes"))
        proxy.accept()
        wait_for(lambda: db.value("SELECT renewed_at > %s FROM jobq.nodes", (renewed,)))
        db.wait_for_states({"completed": db.enqueue("noop")})
    assert "must stop its jobs" not in node.log()
    assert node.running


LEASE_S = 3


def test_a_node_that_cannot_renew_kills_its_workers_before_its_lease_ends(db, proxy, jobqd, programs, ledger):
    """One node's network hangs, longer than its lease. Its workers must be gone before the other node gets the jobs:
    the runs are long, so each that went on would be seen."""
    watch_nodes(db)
    queue = {"default": {"command": ledger.command(programs("ledger_worker"), 800_000, 900_000), "concurrency": 4}}
    node = jobqd(through(proxy, db), queue, lease=f"{LEASE_S}s")
    ids = enqueue_crowd(db, 40)
    wait_ended(ledger, 4)
    proxy.stall()
    expires = db.value("SELECT extract(epoch FROM expires_at - clock_timestamp())::float FROM jobq.nodes")
    lease_ends_ns = boottime_ns() + int(expires * 1e9)
    before = set(node.workers())
    other = jobqd(db, queue, lease=f"{LEASE_S}s")
    node.wait_log("must stop its jobs: the lease could not be renewed")
    wait_for(lambda: not before & set(node.workers()))
    assert boottime_ns() < lease_ends_ns, "its workers outlived the lease"

    def taken_over():
        return [run for run in ledger.read().runs if run.worker.parent == other.pid and run.attempt > 1]
    assert wait_for(taken_over)[0].start_ns > lease_ends_ns
    proxy.resume()
    wait_all_finished(db, 40)
    kinds = check_completed(db, ledger, ids)
    assert set(kinds) == {"orphaned"}
    # The node is back, under a new id, with new workers.
    wait_for(lambda: db.value("SELECT count(*) FROM public.seen_nodes WHERE name = 'node1'") == 2)
    assert node.running and other.running


def test_the_server_hangs_longer_than_the_lease(cluster, jobqd, programs, ledger):
    """Every process of the server is stopped: neither node can renew, both must stop their workers."""
    db = cluster.db
    watch_nodes(db)
    queue = {"default": {"command": ledger.command(programs("ledger_worker"), 100_000, 200_000), "concurrency": 2}}
    nodes = [jobqd(db, queue, lease="2s"), jobqd(db, queue, lease="2s")]
    ids = enqueue_crowd(db, 100)
    wait_ended(ledger, 10)
    held = {worker.pid for worker in ledger.read().workers}
    processes = cluster.processes()
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        for node in nodes:
            node.wait_log("must stop its jobs: the lease could not be renewed")
        wait_for(lambda: not any(held & set(node.workers()) for node in nodes))
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)
    wait_all_finished(db, 100)
    kinds = check_completed(db, ledger, ids)
    assert set(kinds) <= {"orphaned"}
    assert all(node.running for node in nodes)


def test_a_hang_shorter_than_the_lease_is_not_noticed_by_the_jobs(db, proxy, jobqd, programs, ledger):
    watch_nodes(db)
    node = jobqd(through(proxy, db), {"default": {"command": ledger.command(programs("ledger_worker"), 100, 5000),
                                             "concurrency": 4}}, lease="6s")
    ids = enqueue_crowd(db, 4000)
    wait_ended(ledger, 500)
    proxy.stall()
    # The control connection is found dead after a third of the lease: then the hang is over.
    node.wait_log("database: unavailable")
    proxy.resume()
    wait_all_finished(db, 4000)
    assert not check_completed(db, ledger, ids)
    assert db.value("SELECT count(*) FROM public.seen_nodes") == 1
