"""The database's disk is full: its tables cannot grow, or its log cannot, which it does not survive. Jobs wait, running
ones are not lost, and everything goes on when there is room again. The disk is programs/libfull_disk.c."""

import re
import shutil

import psycopg
import pytest

from harness.crowd import check_completed, enqueue_crowd, wait_all_finished, wait_ended, watch_nodes
from harness.waiting import wait_for

JOBS = 1500


class Disk:
    def __init__(self, cluster, library, folder):
        self.flag = cluster.dir / "full"
        copy = cluster.dir / "full_disk.so"  # where the server's user may read it
        shutil.copy(library, copy)
        copy.chmod(0o755)
        self.env = {"LD_PRELOAD": str(copy), "FULL_DISK": str(cluster.data / folder), "FULL_DISK_FLAG": str(self.flag)}

    def fill(self):
        self.flag.touch()

    def free(self):
        self.flag.unlink()


@pytest.fixture
def disk(request, cluster, programs):
    """The disk under a folder of the server's data."""
    one = Disk(cluster, programs("libfull_disk.so"), request.param)
    cluster.stop()
    cluster.env = one.env
    cluster.start()
    return one


def check_unharmed(db, ledger, ids, node):
    wait_all_finished(db, len(ids))
    assert not check_completed(db, ledger, ids)
    assert len(ledger.runs) == len(ids), "a job ran twice"
    assert db.value("SELECT count(*) FROM public.seen_nodes") == 1
    assert node.running


@pytest.mark.parametrize("disk", ["base"], indirect=True)
def test_no_room_for_a_table_to_grow(cluster, disk, jobqd, programs, ledger):
    db = cluster.db
    watch_nodes(db)
    node = jobqd(db, {"default": {"command": ledger.command(programs("ledger_worker"), 100, 5000), "concurrency": 4}},
                 lease="60s")
    ids = enqueue_crowd(db, JOBS)
    wait_ended(ledger, 100)
    later = [row[0] for row in db.query(
        "SELECT jobq.enqueue('work', '{}', scheduled_at => now() + interval '1 s') FROM generate_series(1, 1000)")]
    disk.fill()
    node.wait_log("the database refused claims or answers, retrying in .*No space left on device")
    with pytest.raises(psycopg.errors.DiskFull):
        while True:
            enqueue_crowd(db, 100, queue="other")
    assert ledger.read().ended < JOBS
    # Due jobs cannot become available either; the pauses between the tries grow.
    node.wait_log("stager: the database refused to stage due jobs, retrying in 2 s: .*No space left on device")
    node.wait_log("queue default: the database refused .*, retrying in 1.6 s: .*No space left on device")
    assert len(re.findall("queue default: the database refused .*, retrying in 100 ms", node.log())) <= 4, "a pause ended too soon"
    assert "refuses every change" not in node.log(), "a job was blamed for the disk"
    disk.free()
    db.query("DELETE FROM jobq.jobs WHERE queue = 'other'")
    check_unharmed(db, ledger, ids + later, node)
    assert "database: unavailable" not in node.log()


@pytest.mark.parametrize("disk", ["pg_wal"], indirect=True)
def test_no_room_for_the_log(cluster, disk, jobqd, programs, ledger):
    """The server panics, and cannot recover without room either."""
    db = cluster.db
    watch_nodes(db)
    node = jobqd(db, {"default": {"command": ledger.command(programs("ledger_worker"), 100, 5000), "concurrency": 4}},
                 lease="60s")
    ids = enqueue_crowd(db, JOBS)
    wait_ended(ledger, 100)
    disk.fill()
    with pytest.raises(psycopg.OperationalError):
        while True:
            db.query("SELECT pg_logical_emit_message(true, 'test', 'test')")
            db.query("SELECT pg_switch_wal()")
    node.wait_log(r"database: unavailable \(running jobs continue\): ")
    wait_for(lambda: cluster.process.poll() is not None, what=cluster.log)
    assert ledger.read().ended < JOBS
    assert "PANIC:  could not write to file" in cluster.log()
    disk.free()
    cluster.start()
    db.close()
    check_unharmed(db, ledger, ids, node)
    node.wait_log("database: available again")
