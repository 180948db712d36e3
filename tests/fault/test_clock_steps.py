"""The wall clocks of the database's and of a node's machine are set, by hours, while jobs run: nothing happens. Leases go by
CLOCK_BOOTTIME on each node, and by whether a renewal was seen, never by what a clock shows."""

import json
import re
import time

import pytest

from harness.clock import Clock, clean_up
from harness.crowd import check_completed, enqueue_crowd, wait_all_finished, wait_ended, watch_nodes
from harness.waiting import wait_for


@pytest.fixture(scope="module", autouse=True)
def no_shared_memory_is_left():
    """libfaketime's, of processes that ended without a word to it."""
    yield
    clean_up()


@pytest.fixture
def server_clock(cluster):
    """The wall clock of `cluster`."""
    cluster.db.close()
    cluster.stop()
    clock = Clock(cluster.dir / "clock")
    cluster.env = clock.env
    cluster.start()
    return clock


def hours_off(db):
    return round(db.value("SELECT extract(epoch FROM clock_timestamp())::float - %s::float", (time.time(),)) / 3600)


def test_the_database_s_clock_is_set_while_jobs_run(cluster, server_clock, jobqd, programs, ledger):
    db = cluster.db
    watch_nodes(db)
    queue = {"default": {"command": ledger.command(programs("ledger_worker"), 100_000, 900_000), "concurrency": 3}}
    nodes = [jobqd(db, queue, lease="4s"), jobqd(db, queue, lease="4s")]
    ids = []
    for hours in (1, -2, 0):
        more = enqueue_crowd(db, 12)
        ids += more
        wait_for(lambda: len(ledger.read().runs) - ledger.ended == 6)
        server_clock.set(f"{hours * 3600:+d}")
        assert hours_off(db) == hours
        # Long enough for two looks at all leases.
        renewed = db.value("SELECT max(renewed_at) FROM jobq.nodes")
        wait_for(lambda: db.value("SELECT bool_and(renewed_at <> %s) FROM jobq.nodes", (renewed,)))
        wait_ended(ledger, len(ids) - 3)
    wait_all_finished(db, len(ids))
    assert not check_completed(db, ledger, ids), "an attempt was counted that did not fail"
    assert db.value("SELECT count(*) FROM public.seen_nodes") == 2
    for node in nodes:
        assert "must stop its jobs" not in node.log() and "lifeline" not in node.log()


def test_a_dead_node_is_found_in_time_although_the_database_s_clock_was_set_back(cluster, server_clock, jobqd, programs, ledger):
    """By its rows the lead and the dead node's lease would last for an hour more."""
    db = cluster.db
    watch_nodes(db)
    queue = {"default": {"command": ledger.command(programs("ledger_worker"), 300_000, 600_000), "concurrency": 2}}
    nodes = [jobqd(db, queue, lease="1s"), jobqd(db, queue, lease="1s")]
    leads = "SELECT n.name FROM jobq._leader l JOIN jobq.nodes n ON n.id = l.node_id"
    name = wait_for(lambda: db.value(leads))
    leader, = (node for node in nodes if node.folder.name == name)
    other, = (node for node in nodes if node is not leader)
    ids = enqueue_crowd(db, 12)
    wait_for(lambda: {run.worker.parent for run in ledger.read().runs} == {node.pid for node in nodes})
    leader.kill()
    server_clock.set("-3600")
    wait_all_finished(db, 12, timeout=30)
    assert set(check_completed(db, ledger, ids)) == {"orphaned"}
    other.wait_log("lifeline: removed 1 node whose lease expired")
    wait_for(lambda: db.value(leads) == other.folder.name)


def test_a_node_s_clock_is_set_while_jobs_run(db, tmp_path, jobqd, programs, ledger):
    watch_nodes(db)
    clock = Clock(tmp_path / "clock")
    queue = {"default": {"command": ledger.command(programs("ledger_worker"), 100_000, 900_000), "concurrency": 3}}
    stepped, steady = jobqd(db, queue, env=clock.env, lease="4s"), jobqd(db, queue, lease="4s")
    ids = []
    for hours in (1, -2, 0):
        ids += enqueue_crowd(db, 12)
        wait_for(lambda: len(ledger.read().runs) - ledger.ended == 6)
        clock.set(f"{hours * 3600:+d}")
        wait_ended(ledger, len(ids) - 3)
    wait_all_finished(db, len(ids))
    assert not check_completed(db, ledger, ids)
    assert db.value("SELECT count(*) FROM public.seen_nodes") == 2
    for node in (stepped, steady):
        assert "must stop its jobs" not in node.log() and "guard" not in node.log()


def test_doctor_says_that_clocks_differ(db, cli, tmp_path):
    clock = Clock(tmp_path / "clock")
    clock.set("+90")
    said = json.loads(cli("doctor", "--json", db=db, code=None, env=clock.env).stdout)
    level, found, remedy = next((f["level"], f["found"], f["remedy"]) for f in said["findings"] if f["check"] == "clock")
    assert level == "warn" and "time server" in remedy
    assert re.fullmatch(r"the database's clock is (89|9\d)\.\d s behind this host's clock", found), found
