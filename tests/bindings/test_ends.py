"""How jobs of Python end where something else happens meanwhile: a fork, a signal, a late moment, an application's hooks."""

import datetime
import os
import re
import signal

import pytest

import jobq
from harness.waiting import wait_for
from test_worker import queue  # noqa: F401

WAYS = {"plain": "app.ends", "many": "--concurrency 8 app.ends"}


@pytest.fixture(params=WAYS)
def way(request):
    return request.param


@pytest.fixture
def node(jobqd, db, queue, way, tmp_path):  # noqa: F811
    return jobqd(db, {"default": queue(WAYS[way], env=f"ENDS_NOTES={tmp_path / 'notes'}", concurrency=1, max_crashes=1)})


def ended(client, kind, args=None, **options):
    return client.wait(client.enqueue(kind, args, **options), 60)


def test_a_forked_child_that_falls_out_is_no_worker(client, node, tmp_path):
    """E3. Its answer is nobody's, it leaves no middleware, runs no other jobs, and ends; the parent goes on."""
    for kind in ("falls-out", "falls-out-later", "falls-out-softly", "falls-out-softly-later"):
        for how, code in [("returns", 70), ("raises", 70), ("exits", 3)]:
            beside = client.enqueue_many([jobq.NewJob("pid")] * 5)
            job = ended(client, kind, {"how": how})
            assert (job.state, job.result, job.errors) == ("completed", f"the child ended with {code}", [])
            assert {client.wait(other, 60).result for other in beside} == set(node.workers())
        notes = (tmp_path / "notes").read_text().splitlines()
        assert (notes.count(f"> {kind}"), notes.count(f"< {kind}")) == (3, 3)
    said = ended(client, "child-asks").result
    assert said[0] == "0" and "only the worker itself may answer jobqd" in said[1]
    assert "a process that a job's function forked has come out of the function, and ends here" in node.log()
    assert "ValueError: in the child" in node.log()


def test_a_result_that_cannot_even_be_looked_at(client, node):
    """E1. Whatever writing it raises, the function is done."""
    for how in ("exit", "interrupt", "memory"):
        job = ended(client, "leaves-when-written", {"how": how})
        assert (job.state, job.attempt, job.result) == ("completed", 1, None)
        assert job.errors[0].error.startswith("the result was left out: the result cannot be written as JSON: ")
    [error] = ended(client, "generator-exit", max_attempts=1).errors
    assert (error.kind, error.error) == ("error", "GeneratorExit")


def test_what_a_job_sets_in_its_context_ends_with_it(client, node):
    """E5."""
    for kind in ("leave-behind", "leave-behind-later"):
        assert [ended(client, kind).result for _ in range(3)] == ["nothing"] * 3


def test_a_signal_between_two_jobs_fails_none(client, node, way):
    """E8. One whose handler raises costs no job an attempt, and SIGINT ends the worker as SIGTERM does."""
    if way == "plain":
        for _ in range(20):
            os.kill(ended(client, "set-handler").result, signal.SIGUSR2)
        assert "a signal handler raised between two jobs" in node.log()
    for _ in range(5):
        pid = ended(client, "pid").result
        os.kill(pid, signal.SIGINT)
        jobs = [client.wait(job, 60) for job in client.enqueue_many([jobq.NewJob("pid")] * 3)]
        assert [(job.state, job.attempt, job.errors) for job in jobs] == [("completed", 1, [])] * 3
        wait_for(lambda pid=pid: pid not in node.workers())


def plain_node(jobqd, db, queue, tmp_path):  # noqa: F811
    return jobqd(db, {"default": queue(WAYS["plain"], env=f"ENDS_NOTES={tmp_path / 'notes'}", concurrency=1)})


def test_an_interrupted_coroutine_does_not_go_on(client, jobqd, db, queue, tmp_path):  # noqa: F811
    """It is cancelled, and not resumed while later jobs run on the same loop."""
    plain_node(jobqd, db, queue, tmp_path)
    [error] = ended(client, "interrupted-later", {"returns": False}, max_attempts=1).errors
    assert error.error == "KeyboardInterrupt"
    assert ended(client, "tasks").result == 1
    job = ended(client, "interrupted-later", {"returns": True}, max_attempts=1)
    assert (job.state, job.result) == ("completed", "all the same")


@pytest.mark.parametrize("what,state,words", [
    ("syntax", "discarded", "SyntaxError"), ("notes", "discarded", "Notes"), ("leaves", "discarded", "Leaves"),
    ("not-yet", "discarded", "the answer failed: .*NotYet has no delay: its __init__ must call Snooze.__init__"),
    ("never", "discarded", None), ("reason", "discarded", "'why'"),
    ("late", "discarded", "the answer failed: jobq.InvalidError: "),
    ("snooze", "discarded", "after must be from 0 to "), ("retry", "discarded", "after must be from 0 to "),
])
def test_what_cannot_be_told_is_an_error_of_the_job(client, node, what, state, words):
    """An exception that raises when it is written, or that asks for what jobqd does not do: the job fails, the worker goes on."""
    before = ended(client, "pid").result
    job = ended(client, "raises", {"what": what}, max_attempts=1)
    assert job.state == state
    if words is not None:
        assert len(job.errors) == 1 and re.search(words, job.errors[0].error), job.errors
    assert ended(client, "pid").result == before


def test_a_hook_that_is_interrupted(client, node):
    before = ended(client, "pid").result
    job = ended(client, "fails-interrupted", max_attempts=1)
    assert (job.state, [error.error for error in job.errors]) == ("discarded", ["KeyError: 'a'"])
    assert ended(client, "pid").result == before


def test_delays_are_ten_years_at_most():
    for delay in (315_360_001, [1, 315_360_001]):
        with pytest.raises(jobq.InvalidError, match="backoff.* must be from 0 to "):
            jobq.worker("too-late", backoff=delay)(lambda: None)
    assert jobq.Snooze(315_360_000).after_ms == 315_360_000_000


def test_sigint_while_many_run_gives_them_back(client, jobqd, db, queue, tmp_path):  # noqa: F811
    """E7. A thread ends what it does, coroutines go back uncounted, nothing is a crash."""
    node = jobqd(db, {"default": queue(WAYS["many"], env=f"ENDS_NOTES={tmp_path / 'notes'}", concurrency=1)})
    thread = client.enqueue("in-thread", {"file": str(tmp_path / "f")})
    loops = client.enqueue_many([jobq.NewJob("on-loop")] * 3)
    wait_for(lambda: (tmp_path / "f").exists() and all(client.get(job).progress for job in loops))
    [pid] = node.workers()
    os.kill(pid, signal.SIGINT)
    assert client.wait(thread, 60).result == "stopped"
    wait_for(lambda: node.workers() and pid not in node.workers())
    for job in loops:
        again = wait_for(lambda job=job: (info := client.get(job)).state == "executing" and info)
        assert (again.attempt, again.errors) == (1, [])


def test_a_soft_limit_is_an_exception(client, node, way):
    for kind in ("soft", "soft-later"):
        job = ended(client, kind, {"catch": False}, max_attempts=1)
        assert job.errors[0].error == "jobq.SoftTimeout: the function has run longer than its soft_timeout"
        assert "app/ends.py" in job.errors[0].detail, job.errors[0].detail
        assert ended(client, kind, {"catch": True}).state == "completed"
    assert [ended(client, "soft-enough").result for _ in range(3)] == ["in time"] * 3


def test_a_soft_limit_while_the_function_waits_for_another_job(client, db, jobqd, queue, way, tmp_path):  # noqa: F811
    """client.wait is jobq's own code; the limit is heard within a second or so, once."""
    jobqd(db, {"default": queue(WAYS[way], env=f"ENDS_NOTES={tmp_path / 'notes'} JOBQ_DATABASE={db.uri}", concurrency=1)})
    other = client.enqueue("never", queue="served-by-nobody").id
    assert ended(client, "soft-waits", {"job": other, "catch": True}, timeout=20).result == "raised once"
    job = ended(client, "soft-waits", {"job": other, "catch": False}, timeout=20, max_attempts=1)
    assert [error.error for error in job.errors] == ["jobq.SoftTimeout: the function has run longer than its soft_timeout"]
    assert "app/ends.py" in job.errors[0].detail and job.finished_at - job.attempted_at < datetime.timedelta(seconds=10)


def test_a_soft_limit_where_functions_call_each_other(client, node, way, tmp_path):
    """A function that calls another decorated one; a coroutine function behind a plain wrapper, within the middleware."""
    for kind in ("soft-calls", "soft-wrapped"):
        job = ended(client, kind, max_attempts=1, timeout=20)
        assert [error.error for error in job.errors] == ["jobq.SoftTimeout: the function has run longer than its soft_timeout"]
    assert (tmp_path / "notes").read_text().splitlines()[-4:-1] == ["> soft-wrapped", "body", "< soft-wrapped"]
    if way == "many":
        job = client.enqueue("wrapped")
        wait_for(lambda: client.get(job).progress)
        client.cancel(job)
        assert client.wait(job, 60).state == "cancelled"
        assert (tmp_path / "notes").read_text().splitlines()[-3:] == ["> wrapped", "end of the body", "< wrapped"]


def test_a_timer_of_the_applications_own_goes_on(client, jobqd, db, queue, tmp_path):  # noqa: F811
    """A soft limit of 30 s that was not needed takes no 30 s from it."""
    plain_node(jobqd, db, queue, tmp_path)
    for kind in ("set-timer", "soft-enough"):
        assert ended(client, kind).state == "completed"
    assert 471 < ended(client, "read-timer").result <= 500


def test_hooks_log_and_exceptions_that_are_hopeless(client, node, tmp_path):
    """E14: middleware, on_error, the log and discard_on; a hook that fails changes nothing."""
    job = ended(client, "fails", max_attempts=1)
    assert (job.state, job.errors[0].error) == ("discarded", "KeyError: 'a'")
    assert re.search(rf"ERROR jobq.worker: job {job.id} \(fails\), attempt 1 of 1, failed: KeyError: 'a'", node.log())
    assert "RuntimeError: the hook fails, too" in node.log()
    job = ended(client, "hopeless", {"n": 1})
    assert (job.state, job.attempt, [error.error for error in job.errors]) == ("discarded", 1, ["KeyError: 1"])
    job = ended(client, "hopeless", {"n": "x"})
    assert (job.state, job.errors[0].error) == ("discarded", "args.n must be a whole number, got 'x'")
    job = ended(client, "soft-enough", {"n": 1})
    assert (job.state, job.attempt) == ("discarded", 1), "arguments that it does not take are hopeless by default"
    patient = client.enqueue("patient", {"n": "x"})
    wait_for(lambda: client.get(patient).state == "retryable")
    job = ended(client, "returns-bytes")
    assert (job.state, job.result) == ("completed", None)
    notes = (tmp_path / "notes").read_text()
    assert notes.startswith("> fails\n< fails\n! fails KeyError\n> hopeless\n< hopeless\n! hopeless KeyError\n")
    assert "! hopeless ArgumentError\n" in notes and "! returns-bytes ResultError\n" in notes
