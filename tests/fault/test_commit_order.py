"""Positions are taken at the insert and seen at the commit, in another order: the claim cursor must not pass by a job
whose transaction commits late. JOBQ_TEST_UNSAFE_BASE shows that it would, without its safe base."""

import random
import threading
import time
from dataclasses import dataclass

import pytest

from harness.crowd import check_completed, enqueue_crowd, wait_all_finished, watch_nodes
from harness.ledger import boottime_ns
from harness.waiting import wait_for

CONNECTIONS = 16
TRANSACTIONS = 40  # of each connection: 0.15 s each on average
BACKLOG_PRIORITY = 5
BACKLOG = 12_000
WORST_S = 10.0  # the promise is 1.5 s; a busy machine may be slow, but a job that is passed by waits for ever


@dataclass
class Committed:
    job: int
    priority: int
    position: int  # None: it was scheduled, and gets its position when it is due
    since_ns: int  # when it was committed and due


class Inserter(threading.Thread):
    """Inserts a few jobs, waits 0 to 300 ms with the transaction open, and commits; every tenth rolls back."""

    def __init__(self, db, seed):
        super().__init__()
        self.db = db
        self.random = random.Random(seed)
        self.committed = []
        self.rolled_back = []
        self.failure = None

    def run(self):
        try:
            with self.db.connect(autocommit=False) as conn:
                for _ in range(TRANSACTIONS):
                    self.transaction(conn)
        except Exception as failure:  # shown by the test's own thread
            self.failure = failure

    def transaction(self, conn):
        jobs = [self.insert(conn) for _ in range(self.random.randint(1, 12))]
        conn.execute("SELECT pg_sleep(%s)", (self.random.random() * 0.3,))
        if self.random.random() < 0.1:
            conn.rollback()
            self.rolled_back += [job for job, *_ in jobs]
            return
        conn.commit()
        now_ns = boottime_ns()
        to_boottime_ns = now_ns - time.time_ns()
        for job, priority, position, due in jobs:
            due_ns = int(due * 1e9) + to_boottime_ns
            self.committed.append(Committed(job, priority, position, max(now_ns, due_ns)))

    def insert(self, conn):
        delay_s = self.random.uniform(0, 2) if self.random.random() < 0.2 else None
        return conn.execute(
            "INSERT INTO jobq.jobs (kind, priority, scheduled_at) VALUES ('work', %s, now() + coalesce(%s, 0) * interval '1 s')"
            " RETURNING id, priority, position, extract(epoch FROM scheduled_at)::float",
            (self.random.randint(0, 3), delay_s)).fetchone()


def insert_from_many_connections(db):
    """Returns the inserters, done."""
    inserters = [Inserter(db, seed) for seed in range(CONNECTIONS)]
    for inserter in inserters:
        inserter.start()
    for inserter in inserters:
        inserter.join()
        if inserter.failure:
            raise inserter.failure
    return inserters


def delays_s(committed, started_ns):
    """{job: how long it waited from the moment when it was the oldest of its priority}. The oldest: committed, due,
    and each job before it in the line that it could know of has begun."""
    delays = {}
    for priority in range(4):
        line = sorted((c for c in committed if c.priority == priority and c.position), key=lambda c: c.position)
        before_ns = []  # (since, start) of those in front
        for one in line:
            start = started_ns[one.job]
            oldest_ns = max([one.since_ns, *(s for since, s in before_ns if since < start and s < start)])
            delays[one.job] = (start - oldest_ns) / 1e9
            before_ns.append((one.since_ns, start))
        for one in committed:
            if one.priority == priority and not one.position:
                delays[one.job] = (started_ns[one.job] - one.since_ns) / 1e9
    return delays


@pytest.mark.alone
def test_a_job_that_commits_late_is_not_passed_by(db, jobqd, programs, ledger):
    watch_nodes(db)
    queue = {"default": {"command": ledger.command(programs("ledger_worker"), 2000, 6000), "concurrency": 4}}
    backlog = enqueue_crowd(db, BACKLOG, priority=BACKLOG_PRIORITY)
    jobqd(db, queue)
    jobqd(db, queue)
    inserters = insert_from_many_connections(db)
    left = db.value("SELECT count(*) FROM jobq.jobs WHERE priority = %s AND state = 'available'", (BACKLOG_PRIORITY,))
    assert left > 0, "the backlog was not permanent"
    committed = [one for inserter in inserters for one in inserter.committed]
    rolled_back = [job for inserter in inserters for job in inserter.rolled_back]
    wait_all_finished(db, BACKLOG + len(committed))

    assert not check_completed(db, ledger, backlog + [one.job for one in committed])
    runs = ledger.by_job()
    assert rolled_back and not any(job in runs for job in rolled_back)
    delays = delays_s(committed, {job: of_job[0].start_ns for job, of_job in runs.items()})
    worst = max(delays.values())
    print(f"{len(committed)} jobs committed late, {len(rolled_back)} rolled back, {left} of the backlog left:"
          f" worst delay {worst * 1000:.0f} ms, p99 {sorted(delays.values())[len(delays) * 99 // 100] * 1000:.0f} ms")
    assert worst < WORST_S


@pytest.mark.alone
def test_without_the_safe_base_jobs_are_lost(db, jobqd, programs, ledger):
    """The test above can fail: with the seam, what commits behind the base stays available for ever."""
    watch_nodes(db)
    queue = {"default": {"command": ledger.command(programs("ledger_worker"), 500, 2000), "concurrency": 4}}
    node = jobqd(db, queue, env={"JOBQ_TEST_UNSAFE_BASE": "1"})
    inserters = insert_from_many_connections(db)
    committed = [one for inserter in inserters for one in inserter.committed]
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs WHERE state <> 'available'") == 0)
    # Whoever comes now is served, again and again (unless passed by as well); those before them are not.
    later = {priority: [] for priority in range(4)}
    for priority, of_priority in later.items():
        def served():
            of_priority.append(db.enqueue("work", priority=priority))
            return db.value("SELECT count(*) FROM jobq.finished_jobs WHERE id = ANY (%s)", (of_priority,)) >= 20
        wait_for(served)
    lost = {job for job, in db.query("SELECT id FROM jobq.jobs WHERE state = 'available'")}
    print(f"{len(lost)} of {len(committed)} jobs stay behind without the safe base")
    assert lost & {one.job for one in committed}

    # Nothing is wrong with the rows: a node with a safe base finds them.
    node.stop()
    jobqd(db, queue)
    wait_all_finished(db, len(committed) + sum(map(len, later.values())))
    check_completed(db, ledger, [job for job, in db.query("SELECT id FROM jobq.finished_jobs")])
