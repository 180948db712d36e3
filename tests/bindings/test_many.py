"""Many jobs at a time in one worker process."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

import jobq
from harness.waiting import wait_for
from test_worker import HERE, queue  # noqa: F401

PYTHONPATH = os.path.dirname(os.path.dirname(jobq.__file__))


@pytest.fixture
def many(jobqd, db, queue):  # noqa: F811
    def of(concurrency=20, module="app.many", **options):
        program = f"--concurrency {concurrency} {module}" if concurrency else module
        return jobqd(db, {"default": queue(program, concurrency=1, **options)}, shutdown_grace="1s")
    return of


def test_coroutines_run_at_the_same_time(client, many):
    many()
    jobs = client.enqueue_many([jobq.NewJob("meet", {"n": 20}) for _ in range(20)])
    assert [client.wait(job, 60).result for job in jobs] == [20] * 20


def test_however_large(client, many):
    """More than jobqd claims ahead of what its workers do."""
    many()
    jobs = [client.enqueue("meet", {"n": 20, "payload": str(i) * 600_000}) for i in range(10, 30)]
    assert [client.wait(job, 60).result for job in jobs] == [20] * 20


def test_not_more_than_it_was_told(client, many):
    many(10)
    jobs = client.enqueue_many([jobq.NewJob("peak", {"n": 10}) for _ in range(30)])
    assert {client.wait(job, 60).result for job in jobs} == {10}


def test_a_functions_own_limit(client, many):
    many()
    jobs = client.enqueue_many([jobq.NewJob("limited") for _ in range(10)])
    assert [client.wait(job, 60).result for job in jobs][-1] == 2


def test_threads(client, many):
    many(concurrency=None)  # three, as the function says
    jobs = client.enqueue_many([jobq.NewJob("threads") for _ in range(3)])
    assert len({client.wait(job, 60).result for job in jobs}) == 3


def test_plain_functions_one_at_a_time(client, many):
    many()
    jobs = client.enqueue_many([jobq.NewJob("one_thread") for _ in range(8)])
    assert {client.wait(job, 60).result for job in jobs} == {1}


def test_a_crash_is_charged_to_all_that_ran(client, many):
    many(max_restarts=100)
    beside = client.enqueue_many([jobq.NewJob("stay", max_attempts=1) for _ in range(3)])
    wait_for(lambda: all(client.get(job).progress for job in beside))
    culprit = client.enqueue("abort_beside", {"others": 3}, max_attempts=1)
    for job in [*beside, culprit]:
        [error] = client.wait(job, 60).errors
        assert error.kind == "crash"
        assert error.error == "was killed by signal 6 (SIGABRT) while it held the job and 3 others"


def test_a_coroutine_past_its_deadline_is_cancelled_alone(client, many):
    many()
    beside = client.enqueue("stay")
    late = client.wait(client.enqueue("stay", timeout=0.5, max_attempts=1), 60)
    assert [error.kind for error in late.errors] == ["timeout"]
    job = client.get(beside)
    assert (job.state, job.attempt) == ("executing", 1)


def test_one_that_does_not_stop_ends_the_process(client, many):
    many(stop_grace="200ms")
    beside = client.enqueue("stay")
    wait_for(lambda: client.get(beside).progress)
    late = client.wait(client.enqueue("obstinate", timeout=0.5, max_attempts=1), 60)
    assert [error.kind for error in late.errors] == ["timeout"]
    job = wait_for(lambda: (job := client.get(beside)).progress and job)
    assert (job.attempt, job.errors) == (1, [])


def test_cancelled(client, many):
    many()
    jobs = [client.enqueue("stay"), client.enqueue("until_stopped")]
    for job in jobs:
        wait_for(lambda: client.get(job).progress)
        client.cancel(job)
        assert client.wait(job, 60).state == "cancelled"


def test_cancelled_error_of_its_own(client, many):
    many()
    [error] = client.wait(client.enqueue("raises_cancelled", max_attempts=1), 60).errors
    assert error.kind == "error" and "of its own" in error.error


def running(client, *kinds, **options):
    """Jobs of these kinds, each of which has begun."""
    jobs = [client.enqueue(kind, **options) for kind in kinds]
    wait_for(lambda: all(client.get(job).progress for job in jobs))
    return jobs


def test_sigterm_gives_them_back(client, many):
    node = many()
    jobs = running(client, "stay", "stay", "until_stopped")
    [pid] = node.workers()
    os.kill(pid, signal.SIGTERM)
    assert client.wait(jobs[2], 60).state == "cancelled"
    for job in jobs[:2]:
        again = wait_for(lambda: (info := client.get(job)).state == "executing" and info)
        assert (again.attempt, again.errors) == (1, [])
    wait_for(lambda: node.workers() and pid not in node.workers())


def test_what_runs_is_finished_when_jobqd_stops(client, many, db):
    node = many()
    jobs = client.enqueue_many([jobq.NewJob("nap") for _ in range(5)])
    wait_for(lambda: all(client.get(job).progress for job in jobs))
    node.stop()
    assert {client.get(job).state for job in jobs} == {"completed"}


def test_jobqd_is_killed(client, many):
    node = many()
    running(client, "stay", "until_stopped")
    [pid] = node.workers()
    node.kill()
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"))


def test_an_upgrade_in_place_goes_on_with_all(client, many):
    node = many()
    workers = node.workers()
    jobs = running(client, "stay", "until_stopped")
    node.signal(signal.SIGUSR2)
    node.wait_log("took over from jobqd")
    others = client.enqueue_many([jobq.NewJob("meet", {"n": 18}) for _ in range(18)])
    assert {client.wait(job, 60).result for job in others} == {18}, "as many at a time as before"
    late = client.wait(client.enqueue("stay", timeout=0.5, max_attempts=1), 60)
    assert [error.kind for error in late.errors] == ["timeout"]
    for job in jobs:
        client.cancel(job)
        ended = client.wait(job, 60)
        assert (ended.state, ended.attempt) == ("cancelled", 1)
    assert node.workers() == workers


@pytest.mark.parametrize("kind, error", [("stop_iteration", "RuntimeError: the function raised StopIteration"),
                                         ("unprintable", "app.many.Unprintable: <exception str() failed>")])
def test_exceptions_that_a_future_cannot_hold(client, many, kind, error):
    many()
    [said] = client.wait(client.enqueue(kind, max_attempts=1), 60).errors
    assert (said.kind, said.error) == ("error", error)


def test_processes_of_a_functions_own(client, many):
    many()
    assert client.wait(client.enqueue("processes"), 60).result == [1, 2]


def test_the_event_loop_breaks(client, many):
    """The process ends at once, although a thread is at work."""
    many(max_restarts=100)
    [_] = running(client, "until_stopped", max_attempts=1)
    job = client.wait(client.enqueue("breaks_the_loop", max_attempts=1), 60)
    assert [error.error for error in job.errors] == ["exited with status 70 while it held the job and 1 other"]
    assert "Bad file descriptor" in job.errors[0].output


def test_exit_in_a_coroutine(client, many):
    many(max_restarts=100)
    [beside] = running(client, "stay", max_attempts=1)
    [error] = client.wait(client.enqueue("leave", max_attempts=1), 60).errors
    assert (error.kind, error.error) == ("crash", "exited with status 3 while it held the job and 1 other")
    assert "SystemExit: 3" in error.output
    assert client.wait(beside, 60).errors[0].kind == "crash"


@pytest.mark.parametrize("preload", ["on", "off"])
def test_preload(client, many, preload):
    many(preload=preload)
    jobs = client.enqueue_many([jobq.NewJob("meet", {"n": 5}) for _ in range(5)])
    assert {client.wait(job, 60).result for job in jobs} == {5}


def test_cpu_limit_is_for_one_at_a_time(client, many):
    node = many(cpu_limit="1s")
    wait_for(lambda: "runs 20 jobs at a time, but cpu_limit allows only one" in node.log())


@pytest.mark.parametrize("given", ["0", "1001", "-1", "x"])
def test_concurrency_is_checked(given):
    told = subprocess.run([sys.executable, "-m", "jobq.worker", f"--concurrency={given}", "app.many"], cwd=HERE, env={
        **os.environ, "PYTHONPATH": PYTHONPATH}, capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode in (2, 64)
    assert "concurrency" in told.stderr and given in told.stderr


@pytest.mark.parametrize("kind", ["plain", "limited"])
def test_what_waits_for_its_functions_turn_does_not_time_out(client, jobqd, db, queue, kind):  # noqa: F811
    """Ten run for longer one after the other than each may."""
    jobqd(db, {"default": queue("app.starved", concurrency=1)})
    jobs = client.enqueue_many([jobq.NewJob(kind, timeout=4, max_attempts=1) for _ in range(10)])
    ended = [client.wait(job, 120) for job in jobs]
    assert [(job.state, job.errors) for job in ended] == [("completed", [])] * 10


# Says that a job's task is there, and waits for a word before the loop goes on.
HELD = """
import os, pathlib, select, jobq
from jobq import _many
begin = _many.Worker._begin

def held(self, work):
    begin(self, work)
    os.write(2, b"held")
    select.select([0], [], [])

_many.Worker._begin = held

@jobq.worker("coroutine")
async def coroutine():
    pass

@jobq.worker("plain")
def plain():
    pass
"""


@pytest.mark.parametrize("kind", ["coroutine", "plain"])
@pytest.mark.parametrize("how, answer", [("cancel", "cancel"), ("term", "snooze")])
def test_what_is_stopped_before_its_first_step_is_answered(tmp_path, kind, how, answer):
    """The test is its jobqd."""
    (tmp_path / "held.py").write_text(HELD)
    ours, theirs = socket.socketpair()
    worker = subprocess.Popen([sys.executable, "-m", "jobq.worker", "--concurrency", "5", "held"], cwd=tmp_path,
                              pass_fds=[theirs.fileno()], stdin=subprocess.PIPE, stderr=subprocess.PIPE,
                              env={**os.environ, "PYTHONPATH": PYTHONPATH, "JOBQ_FD": str(theirs.fileno())})
    theirs.close()
    with ours, worker:
        try:
            ours.settimeout(60)
            said = ours.makefile("r")
            assert json.loads(said.readline())["t"] == "hello"
            job = {"t": "job", "id": 7, "attempt": 1, "max_attempts": 20, "queue": "default", "kind": kind, "args": {}, "meta": {}}
            ours.sendall(json.dumps(job, separators=(",", ":")).encode() + b"\n")
            assert worker.stderr.read(4) == b"held"
            if how == "cancel":
                ours.sendall(b'{"t":"cancel","id":7}\n')
            else:
                worker.send_signal(signal.SIGTERM)
            worker.stdin.close()
            answered = json.loads(said.readline())
            assert (answered["t"], answered["id"]) == (answer, 7)
            if how == "term":
                assert worker.wait(60) == 0
        finally:
            worker.kill()
