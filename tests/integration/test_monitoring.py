"""jobqd/docs/monitoring.md: each query says nothing when all is well, and something when that is wrong which it asks about."""

import pathlib
import re

import pytest

from harness.readme import blocks
from harness.waiting import wait_for

PAGE = pathlib.Path(__file__).resolve().parents[2] / "jobqd" / "docs" / "monitoring.md"


def queries():
    """By the number of their section."""
    sections = re.split(r"^## (\d)\. ", PAGE.read_text(encoding="utf-8"), flags=re.M)[1:]
    return {int(number): next(code for language, code in blocks(text) if language == "sql")
            for number, text in zip(sections[::2], sections[1::2])}


@pytest.fixture
def ask(db):
    """What the query of that section returns to a viewer."""
    def run(number):
        with db.connect() as conn:
            conn.execute("SET ROLE jobq_viewer")
            return conn.execute(queries()[number]).fetchall()
    return run


def test_there_are_seven():
    assert sorted(queries()) == list(range(1, 8))


def test_all_is_well(db, jobqd, programs, ask):
    jobqd(db, {"default": {"command": programs("noop_worker")}})
    job = db.enqueue("ok")
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE id = %s", (job,)) == 1)
    wait_for(lambda: db.value("SELECT (queues -> 'default' ->> 'ready')::int FROM jobq.nodes") == 4)
    assert {number: ask(number) for number in queries()} == {number: [] for number in queries()}


def test_no_node_is_alive(ask):
    assert ask(1) == [("no jobqd is running",)]


def test_jobs_wait(db, ask):
    db.query("INSERT INTO jobq.jobs (kind, scheduled_at) VALUES ('a', now() - interval '6 minutes'), ('a', now())")
    (queue, waiting, oldest), = ask(2)
    assert (queue, waiting) == ("default", 2) and oldest.total_seconds() >= 360


def test_jobs_fail(db, jobqd, programs, ask):
    jobqd(db, {"default": {"command": programs("fault_worker")}})
    db.enqueue("discard", '{"error": "no such user"}')
    db.query("INSERT INTO jobq.jobs (kind, args) SELECT 'fail', '{\"error\": \"no host\", \"retry_in_ms\": 3600000}'"
             " FROM generate_series(1, 101)")
    db.enqueue("none")
    wait_for(lambda: ask(3) == [("default", "discard", 1, "no such user")])
    wait_for(lambda: ask(4) == [("default", "fail", 101, "no host")])
    wait_for(lambda: ask(5) == [("default", "none", 1, "no worker handles this kind")])


def test_a_queue_that_nobody_serves(db, jobqd, programs, ask):
    jobqd(db, {"default": {"command": programs("noop_worker")}})
    db.enqueue("ok", queue="defautl")
    wait_for(lambda: ask(5) == [("defautl", "ok", 1, "no living node serves this queue")])


def test_workers_that_do_not_start(db, jobqd, ask):
    jobqd(db, {"default": {"command": "/bin/false", "concurrency": 2}}, ready=False)
    wait_for(lambda: [row[:2] + row[3:] for row in ask(6)] == [
        ("node1", "default", 2, "exited with status 1 before it said hello")], what=lambda: ask(6))


def test_exec_programs_that_are_all_at_work_are_no_alarm(db, jobqd, ask):
    jobqd(db, {"default": {"exec": "/bin/sleep 1000", "concurrency": 2, "shutdown_grace": "0s"}}, lease="1s")
    for _ in range(2):
        db.enqueue("k")
    wait_for(lambda: db.value("SELECT (queues -> 'default' ->> 'busy')::int FROM jobq.nodes") == 2)
    assert ask(6) == []


def test_what_holds_the_database_back(db, ask):
    db.query("INSERT INTO jobq.refusals (job_id, at, doing, sqlstate, message) VALUES (7, now() - interval '6 minutes', 'claim',"
             " 'P0001', 'closed')")
    assert [row[0] for row in ask(7)] == ["the database refuses to claim job 7: closed"]
