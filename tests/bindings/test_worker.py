"""Workers in Python, run by a real jobqd: how each way to end arrives in the database."""

import dataclasses
import datetime
import decimal
import json
import logging
import os
import pathlib
import signal
import subprocess
import sys
import uuid
from typing import List, NamedTuple, Optional, TypedDict

import pytest

import jobq
from harness.waiting import wait_for
from jobq.validation import Parameters

HERE = pathlib.Path(__file__).parent
UTC = datetime.timezone.utc


@pytest.fixture
def queue(monkeypatch):
    """The configuration of a queue of Python workers."""
    def of(modules="app.jobs", env="", **options):
        return {"command": f"/usr/bin/python3 -m jobq.worker {modules}", "working_directory": str(HERE),
                "env": f"JOBQ_LIBRARY={os.environ['JOBQ_LIBRARY']} {env}", **options}
    monkeypatch.setenv("PYTHONPATH", str(pathlib.Path(jobq.__file__).parents[1]))
    return of


@pytest.fixture
def node(jobqd, db, queue):
    return jobqd(db, {"default": queue(max_crashes=1, concurrency=1)})


def ended(client, kind, args=None, **options):
    return client.wait(client.enqueue(kind, args, **options), 60)


def only_error(client, kind, args=None, **options):
    """The error of a job's one attempt."""
    job = ended(client, kind, args, max_attempts=1, **options)
    assert job.state == "discarded" and len(job.errors) == 1
    return job.errors[0]


# ---- it runs ----

def test_results(client, node):
    assert ended(client, "noop").result is None
    assert ended(client, "echo", {"a": [1, None, {"b": "ü"}], "big": 10**17}).result == {"a": [1, None, {"b": "ü"}], "big": 10**17}


def test_the_context(client, node):
    job = client.enqueue("tell", {"extra": 6}, max_attempts=4, timeout=90, meta={"m": 1})
    assert client.wait(job, 60).result == {
        "id": job.id, "attempt": 1, "max_attempts": 4, "queue": "default", "kind": "tell", "args": {"extra": 6}, "meta": {"m": 1},
        "timeout": 90.0, "last": False, "extra": 6, "stop": 0, "falsy": True}


def test_a_context_counts_until_its_end(client, node):
    assert ended(client, "keep_context").result == "first"
    assert ended(client, "keep_context").result == "NOW, the job has ended"


def test_coroutines(client, node):
    for n in range(3):
        job = ended(client, "coroutine", {"n": n})
        assert job.result == {"n": n, "id": job.id, "same": True, "loops": 1}
    error = only_error(client, "coroutine_raises")
    assert error.error == "ValueError: in a coroutine"
    assert "in coroutine_raises" in error.detail


def test_a_job_enqueues_another(client, jobqd, db, queue):
    jobqd(db, {"default": queue(env=f"JOBQ_DATABASE={db.uri}")})
    assert client.wait(ended(client, "parent", {"n": 1}).result, 60).kind == "noop"


# ---- arguments ----

TYPED = {
    "at": "2031-02-03T04:05:06.5+00:00", "day": "2031-02-03", "took": 1.5, "price": "12.30", "colour": "red",
    "id": "12345678-1234-5678-1234-567812345678", "point": {"x": 1, "y": "0.5"}, "size": [1, 2], "options": {"quality": 3},
    "path": "/tmp/a", "points": [{"x": 1}], "names": ["b"], "pair": [1, "a"], "by_number": {"1": 2}, "mode": "fast"}


def test_arguments_become_what_the_function_takes(client, node):
    from app import jobs
    result = ended(client, "typed", {**TYPED, "either": "s", "maybe": 3, "anything": [1]}).result
    want = (datetime.datetime(2031, 2, 3, 4, 5, 6, 500000, tzinfo=UTC), datetime.date(2031, 2, 3), datetime.timedelta(seconds=1.5),
            decimal.Decimal("12.30"), uuid.UUID(TYPED["id"]), jobs.Colour.RED, jobs.Point(1, decimal.Decimal("0.5")),
            jobs.Size(1, 2), {"quality": 3}, pathlib.Path("/tmp/a"), [jobs.Point(1)], {"b"}, (1, "a"), {1: 2.0}, "fast", 3, "s",
            [1])
    assert result == repr(want)


@pytest.mark.parametrize("change,message", [
    ({"price": None}, "args.price must be a decimal number, got None"),
    ({"at": "tomorrow"}, "args.at must be a time as ISO 8601 has it, got 'tomorrow'"),
    ({"took": True}, "args.took must be a number of seconds, got True"),
    ({"colour": "green"}, "args.colour must be one of 'red', 'blue', got 'green'"),
    ({"point": {"y": 1}}, "args.point lacks 'x'; Point has x, y"),
    ({"point": {"x": 1, "z": 1}}, "args.point has a member 'z'; Point has x, y"),
    ({"point": {"x": "1"}}, "args.point.x must be a whole number, got '1'"),
    ({"points": [{"x": 1}, 7]}, "args.points[1] must be an object (Point), got 7"),
    ({"size": [1]}, "args.size must be an array of 2, got [1]"),
    ({"options": {"quality": "best"}}, "args.options.quality must be a whole number, got 'best'"),
    ({"mode": "slower"}, "args.mode must be one of 'fast', 'slow', got 'slower'"),
    ({"maybe": "x"}, "args.maybe must be int or NoneType, got 'x'"),
    ({"colour_": 1}, "args have a member 'colour_'; the function takes at, day,"),
    ({"id": "x"}, "args.id must be a UUID, got 'x'"),
    ({"by_number": {"one": 1}}, "args.by_number's member must be named by whole numbers, got 'one'"),
])
def test_wrong_arguments_are_named_and_the_function_does_not_run(change, message):
    from app import jobs
    with pytest.raises(jobq.ArgumentError) as caught:
        jobs.typed.parameters.convert({**TYPED, **change})
    assert str(caught.value).startswith(message)


@dataclasses.dataclass
class Tree:
    name: str
    children: "List[Tree]" = dataclasses.field(default_factory=list)


class Comment(TypedDict):
    text: str
    answers: "List[Comment]"


class Chain(NamedTuple):
    link: int
    rest: "Optional[Chain]"


@dataclasses.dataclass
class Torn:
    rest: "NobodyKnows"  # noqa: F821


def takes_trees(tree: Tree, comment: Comment, chain: Chain, ratio: float) -> None:
    """Types that have members of their own type."""


TREES = {"tree": {"name": "a", "children": [{"name": "b", "children": [{"name": "c"}]}]},
         "comment": {"text": "x", "answers": [{"text": "y", "answers": []}]}, "chain": [1, [2, None]], "ratio": 1}


def test_types_that_refer_to_themselves():
    got = Parameters(takes_trees, jobq.Context, True).convert(TREES)
    assert got["tree"] == Tree("a", [Tree("b", [Tree("c")])])
    assert got["comment"] == TREES["comment"]
    assert got["chain"] == Chain(1, Chain(2, None))


@pytest.mark.parametrize("change,message", [
    ({"tree": {"name": "a", "children": [{"name": "b"}, {"name": 1}]}}, "args.tree.children[1].name must be a string, got 1"),
    ({"comment": {"text": "x", "answers": [{"text": "y"}]}}, "args.comment.answers[0] lacks 'answers'; Comment has answers, text"),
    ({"ratio": 10 ** 400}, "args.ratio must be a number that a double can hold, got 1000"),
])
def test_wrong_arguments_deep_within(change, message):
    with pytest.raises(jobq.ArgumentError) as caught:
        Parameters(takes_trees, jobq.Context, True).convert({**TREES, **change})
    assert str(caught.value).startswith(message)


def test_annotations_that_cannot_be_read_are_named():
    def takes_torn(torn: Torn) -> None:
        """Its member's type is nowhere."""
    message = "^the annotation of Torn's rest cannot be read \\(name 'NobodyKnows' is not defined\\): it is not checked, and "
    with pytest.warns(jobq.AnnotationWarning, match=message):
        Parameters(takes_torn, jobq.Context, True)
    assert Parameters(takes_torn, jobq.Context, False).convert({"torn": 1}) == {"torn": 1}


def test_wrong_arguments_are_an_error_of_the_job(client, node):
    assert only_error(client, "typed", {}).error.startswith("args lack 'at', 'by_number',")
    assert only_error(client, "coroutine", {"n": "1"}).error == "args.n must be a whole number, got '1'"


# ---- how it ends ----

def test_an_exception(client, node):
    error = only_error(client, "raise", {"text": "börk\nsecond"})
    assert (error.kind, error.error) == ("error", "ValueError: börk second")
    assert error.detail.startswith("Traceback (most recent call last):\n")
    assert "in raises\n    inner(text)" in error.detail and "in inner\n    raise ValueError(text)" in error.detail
    assert "_running.py" not in error.detail


@pytest.mark.parametrize("kind,delay", [("raise", 60), ("raise_by_attempt", 100), ("raise_by_list", 10)])
def test_a_backoff_of_its_own(client, db, node, kind, delay):
    job = client.enqueue(kind)
    wait_for(lambda: client.get(job).state == "retryable")
    got = db.value("SELECT scheduled_at - (errors->0->>'at')::timestamptz FROM jobq.jobs").total_seconds()
    assert abs(got - delay) < 2


def test_a_backoff_that_fails_is_the_queues(client, node):
    job = client.enqueue("raise_bad_backoff")
    wait_for(lambda: client.get(job).state == "retryable")
    assert client.get(job).errors[0].error == "ValueError: again"
    assert "the backoff of raise_bad_backoff failed" in node.log()


def test_snooze(client, db, node):
    job = client.enqueue("snooze", {"seconds": 60})
    wait_for(lambda: client.get(job).attempted_at is not None and client.get(job).state == "scheduled")
    assert (client.get(job).attempt, client.get(job).errors) == (0, [])
    left = client.get(job).scheduled_at - client.get(job).attempted_at
    assert 59 < left.total_seconds() < 70


@pytest.mark.parametrize("kind,state", [("cancel", "cancelled"), ("discard", "discarded")])
def test_cancel_and_discard(client, node, kind, state):
    job = ended(client, kind, {"why": "not wanted"})
    assert (job.state, job.attempt) == (state, 1)
    assert job.errors[-1].error == "not wanted"
    assert ended(client, kind).state == state


def test_retry(client, db, node):
    job = client.enqueue("retry", {"after": 300, "reason": "the printer is on fire"})
    wait_for(lambda: client.get(job).state == "retryable")
    assert client.get(job).errors[0].error == "the printer is on fire"
    assert 290 < (client.get(job).scheduled_at - client.get(job).errors[0].at).total_seconds() < 310
    caused = only_error(client, "retry", {"cause": True})
    assert caused.error == "ValueError: the cause" and "in inner" in caused.detail
    assert only_error(client, "retry").error == "jobq.Retry: to be tried again"


def test_a_result_that_is_no_json(client, node):
    job = ended(client, "bad_result")
    assert (job.state, job.attempt, job.result) == ("completed", 1, None)
    [error] = job.errors
    assert error.error.startswith("the result was left out: the result cannot be written as JSON: object <object object")
    line = next(line for line in node.log().splitlines() if "the result was left out" in line)
    assert f"job {job.id} (kind bad_result): attempt 1 completed, but the result was left out: " in line
    assert "jobq.ResultError" in node.log() or "ResultError: the result cannot" in node.log()


def test_an_outcome_that_is_returned(client, node):
    job = ended(client, "returns_discard")
    assert (job.state, job.attempt, job.result) == ("completed", 1, None)
    assert [error.error for error in job.errors] == \
        ["the result was left out: the function returned Discard('x'): raise it, do not return it"]


def test_a_kind_without_a_function(client, node):
    error = only_error(client, "no_such_kind")
    assert error.kind == "unhandled"


def test_sys_exit_is_a_crash(client, node):
    error = only_error(client, "exit")
    assert error.kind == "crash"
    assert "3" in error.error
    assert "last words" in error.output and "sys.exit(code)" in error.output
    assert "no good" in only_error(client, "exit", {"code": "no good"}).output


@pytest.mark.parametrize("kind,name,words", [
    ("abort", "SIGABRT", "in abort"),
    ("segfault", "SIGSEGV", "in segfault"),
])
def test_a_signal_is_a_crash_with_pythons_traceback(client, node, kind, name, words):
    error = only_error(client, kind)
    assert error.kind == "crash"
    assert name in json.dumps([error.error, error.more])
    assert "Fatal Python error" in error.output and words in error.output
    assert ended(client, "noop").state == "completed"


@pytest.mark.parametrize("kind", ["spin", "spin_in_c"])
def test_an_endless_loop_is_killed(client, jobqd, db, queue, kind):
    jobqd(db, {"default": queue(stop_grace="100ms")})
    error = only_error(client, kind, timeout=0.5)
    assert error.kind == "timeout"
    assert ended(client, "noop").state == "completed"


def test_memory_without_end(client, jobqd, db, queue):
    jobqd(db, {"default": queue(max_memory_hard="150MiB")})
    error = only_error(client, "grow")
    assert error.kind == "memory"
    assert ended(client, "noop").state == "completed"


def test_what_is_no_exception_of_the_job(client, node):
    assert ended(client, "thread_dies").result == "survived"
    assert only_error(client, "interrupt").error == "KeyboardInterrupt"


# ---- while it runs ----

def test_progress_and_a_cancel(client, node, tmp_path):
    job = client.enqueue("until_stopped", {"file": str(tmp_path / "f")})
    wait_for(lambda: client.get(job).progress is not None)
    assert (client.get(job).progress, client.get(job).progress_note) == (0.25, "waiting")
    assert client.cancel(job) is False
    done = client.wait(job, 60)
    assert (done.state, done.errors[-1].error) == ("cancelled", "cancelled by request")
    assert (tmp_path / "f").read_text() == "CANCEL"


def test_a_drain_is_heard(client, db, node, tmp_path):
    job = client.enqueue("until_stopped", {"file": str(tmp_path / "f")})
    wait_for((tmp_path / "f").exists)
    node.stop()
    assert (client.get(job).state, client.get(job).attempt) == ("available", 0)


def test_sigterm_is_heard(client, db, node, tmp_path):
    job = client.enqueue("until_stopped", {"file": str(tmp_path / "f")}, max_attempts=1)
    wait_for((tmp_path / "f").exists)
    pid = int(node.wait_log(r"worker default/w1 pid (\d+): (?:replacement )?ready").group(1))
    os.kill(pid, signal.SIGTERM)
    assert client.wait(job, 60).errors[-1].error == "stopped by NOW"


def test_logging_knows_the_job(client, node):
    job = ended(client, "log")
    for text in ("WARNING app: from a function", "from print", "to stderr"):
        line = next(line for line in node.log().splitlines() if text in line)
        assert f"job {job.id}" in line


def test_records_have_the_job():
    record = logging.getLogger("app").makeRecord("app", logging.INFO, "f", 1, "m", (), None)
    assert (record.jobq_id, record.jobq_kind, record.jobq_attempt) == (None, None, None)


# ---- preload ----

@pytest.mark.parametrize("preload", ["on", "off"])
def test_preload(client, jobqd, db, queue, preload):
    """The modules are imported once, for all workers; each has its own random numbers, threads and connections."""
    node = jobqd(db, {"default": queue(env=f"JOBQ_DATABASE={db.uri}", preload=preload, concurrency=3, mailbox=1, max_crashes=1)})
    client.enqueue("noop")
    results = {}
    while len(results) < 3:
        for job in client.enqueue_many([jobq.NewJob("preloaded")] * 20):
            result = client.wait(job, 60).result
            results[result["pid"]] = result
            assert (result["thread"], result["threads"]) == (True, 1)
            assert client.wait(result["child"], 60).state == "completed"
    assert len({result["loaded_by"] for result in results.values()}) == (1 if preload == "on" else 3)
    assert len({result["random"] for result in results.values()}) == 3
    assert only_error(client, "segfault").kind == "crash"
    assert only_error(client, "coroutine_raises").error == "ValueError: in a coroutine"
    assert ended(client, "coroutine", {"n": 1}).result["n"] == 1
    node.stop()


# ---- the program ----

def worker(queue, *args, env=None):
    return subprocess.run([sys.executable, "-m", "jobq.worker", *args], cwd=HERE, capture_output=True, text=True, timeout=60,
                          env={**os.environ, **(env or {})})


@pytest.mark.parametrize("args,code,words", [
    ([], 2, "the following arguments are required: MODULE"),
    (["no.such.module"], 70, "ModuleNotFoundError: No module named 'no'"),
    (["app"], 64, "jobq.worker: app has no @jobq.worker function"),
    (["app.jobs"], 70, "jobq.worker: "),
    (["./app/jobs.py"], 64, "jobq.worker: MODULE is a name as in import: app.jobs, not ./app/jobs.py\n"),
    (["./app"], 64, "jobq.worker: MODULE is a name as in import: app, not ./app\n"),
    (["app.jobs.py"], 64, "jobq.worker: MODULE is a name as in import: app.jobs, not app.jobs.py\n"),
    (["nowhere.py"], 64, "jobq.worker: MODULE is a name as in import: nowhere, not nowhere.py\n"),
    (["app.jobs", "--log-level", "loud"], 2, "invalid choice: 'LOUD'"),
], ids=["nothing", "no_module", "no_function", "not_by_jobqd", "path", "folder", "file", "no_file", "level"])
def test_the_command_line(queue, args, code, words):
    queue()
    done = worker(queue, *args)
    assert done.returncode == code
    assert words in done.stderr
    assert "MODULE is" not in words or done.stderr == words, "no traceback"


def test_a_module_that_fails_to_load_backs_the_pool_off(client, jobqd, db, queue):
    node = jobqd(db, {"default": queue("no.such.module")}, ready=False)
    node.wait_log("ModuleNotFoundError: No module named 'no'")
    node.stop()


def test_another_librarys_version_is_named(tmp_path, queue):
    queue()
    source = tmp_path / "v.c"
    source.write_text('const char *jobq_version(void) { return "9.1.0"; }\n')
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "libjobq.so.0", source], check=True)
    env = {"JOBQ_LIBRARY": str(tmp_path / "libjobq.so.0")}
    done = worker(queue, "app.jobs", env=env)
    assert "is libjobq 9.1.0, but this package is jobq 0.1.0: both need the same major and minor" in done.stderr
    assert done.returncode == 1
    os.unlink(env["JOBQ_LIBRARY"])
    assert "cannot load libjobq from" in worker(queue, "app.jobs", env=env).stderr
    assert "/lib/x86_64-linux-gnu/libc.so.6 is no libjobq" in \
        worker(queue, "app.jobs", env={"JOBQ_LIBRARY": "/lib/x86_64-linux-gnu/libc.so.6"}).stderr


@pytest.mark.parametrize("kind, args, result, effects", [
    ("charge", {}, {"by": "its transaction"}, 1),
    ("charge", {"then": "raise"}, {"by": "its transaction"}, 1),
    ("charge", {"then": "roll back"}, {"by": "the function"}, 0),
    ("charge_async", {}, {"by": "its transaction"}, 1),
])
def test_a_function_completes_its_job_in_its_own_transaction(client, jobqd, db, queue, kind, args, result, effects):
    db.query("CREATE TABLE public.effects (job bigint)")
    jobqd(db, {"default": queue("app.completes", concurrency=1, env=f"DATABASE={db.uri}")})
    job = client.enqueue(kind, args)
    ended = client.wait(job, 60)
    assert (ended.state, ended.result, ended.errors, ended.attempt) == ("completed", result, [], 1)
    assert db.value("SELECT count(*) FROM public.effects WHERE job = %s", (int(job),)) == effects


def test_a_result_that_has_no_form_completes_nothing(client, jobqd, db, queue):
    jobqd(db, {"default": queue("app.completes", concurrency=1, env=f"DATABASE={db.uri}")})
    assert client.wait(client.enqueue("wrong"), 60).result.startswith("ResultError: the result")
