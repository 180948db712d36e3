"""How jobs of Python end where something else happens meanwhile: a fork, a signal, a late moment, an application's hooks."""

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


def test_a_forked_child_that_falls_out_is_no_worker(client, node):
    """E3. Its answer is nobody's, it runs no other jobs, and ends; the parent goes on."""
    for kind in ("falls-out", "falls-out-later"):
        for how, code in [("returns", 70), ("raises", 70), ("exits", 3)]:
            beside = client.enqueue_many([jobq.NewJob("pid")] * 5)
            job = ended(client, kind, {"how": how})
            assert (job.state, job.result, job.errors) == ("completed", f"the child ended with {code}", [])
            assert {client.wait(other, 60).result for other in beside} == set(node.workers())
    said = ended(client, "child-asks").result
    assert said[0] == "0" and "only that one answers jobqd" in said[1]
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
        assert job.errors[0].error == "jobq.outcome.SoftTimeout: the function has run longer than its soft_timeout"
        assert ended(client, kind, {"catch": True}).state == "completed"
    assert [ended(client, "soft-enough").result for _ in range(3)] == ["in time"] * 3


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
