"""jobq.testing, as an application's tests would use it."""

import asyncio
import datetime
import os
import pathlib
import subprocess
import sys

import psycopg
import psycopg2
import pytest
import sqlalchemy

import jobq
from app import jobs
from jobq import testing
from test_transactions import django_connection, psycopg3, psycopg_2, sqlalchemy_connection, sqlalchemy_session

UTC = datetime.timezone.utc


@pytest.fixture(autouse=True)
def default_client(client):
    """What .enqueue() uses."""
    jobq.set_client(client)
    yield
    jobq.set_client(None)


# ---- decorated functions ----

def test_a_decorated_function_is_still_the_function():
    assert jobs.echo(a=1) == {"a": 1}
    assert (jobs.echo.__name__, jobs.typed.__module__, jobs.noop.__doc__) == ("echo", "app.jobs", "Nothing.")
    assert repr(jobs.echo) == "<jobq.Handler echo of echo>"
    assert jobq.handlers()["echo"] is jobs.echo


def test_enqueue_has_the_decorators_options(client):
    job = client.get(jobs.echo.enqueue(a=1))
    assert (job.kind, job.args, job.queue, job.max_attempts, job.timeout) == \
        ("echo", {"a": 1}, "default", 7, datetime.timedelta(minutes=2))


def test_options_for_one_call(db, client):
    call = jobs.echo.options(queue="media", priority=3, schedule_in=60, unique_key="k")
    made = call.enqueue(a=2)
    assert call.enqueue(a=3).conflict == "ignored"
    job = client.get(made)
    assert (job.queue, job.priority, job.state, job.max_attempts, job.args) == ("media", 3, "scheduled", 7, {"a": 2})
    assert client.enqueue_many([jobs.echo.job(a=i) for i in range(3)] + [call.job(a=9)])[3].id == made.id
    with pytest.raises(jobq.InvalidError, match="there is no option 'colour'; allowed are expires_at"):
        jobs.echo.options(colour=1)


def test_enqueue_in_a_transaction_and_by_another_client(db):
    with psycopg.connect(db.uri) as conn:
        jobs.noop.options(connection=conn).enqueue()
        conn.rollback()
    assert db.value("SELECT count(*) FROM jobq.jobs") == 0
    with jobq.Client("host=/nonexistent") as other, pytest.raises(jobq.ConnectionLostError):
        jobs.noop.options(client=other).enqueue()


@pytest.mark.parametrize("args,kwargs,message", [
    ((), {}, "args: missing a required argument: 'n'"),
    ((1, 2), {}, "args: too many positional arguments"),
    ((), {"n": 1, "m": 2}, "args: got an unexpected keyword argument 'm'"),
    ((object(),), {}, "args.n cannot be written as JSON: object <object"),
])
def test_a_call_that_the_function_would_not_take(args, kwargs, message):
    with pytest.raises(jobq.InvalidError, match=message):
        jobs.coroutine.enqueue(*args, **kwargs)


@pytest.mark.parametrize("options,message", [
    ({"kind": 7}, "kind must be a str"),
    ({"kind": "x", "priority": 12}, "priority must be"),
    ({"kind": "x", "backoff": []}, "backoff must be seconds"),
    ({"kind": "x", "backoff": [1, -1]}, r"backoff\[1\] must be from 0"),
    ({"kind": "x", "backoff": "soon"}, "backoff must be"),
    ({"kind": "x", "timeout": 0}, "timeout must be"),
    ({"kind": "echo"}, "kind 'echo' has a handler already: app.jobs.echo"),
])
def test_a_wrong_decorator(options, message):
    with pytest.raises(jobq.InvalidError, match=message):
        jobq.worker(**options)(lambda: None)


def test_functions_that_cannot_be_jobs():
    with pytest.raises(jobq.InvalidError, match="by position alone"):
        jobq.worker("positional")(lambda *args: None)

    def generator():
        yield 1
    with pytest.raises(jobq.InvalidError, match="kind 'generator': .*generator is a generator function"):
        jobq.worker("generator")(generator)

    def unknown(a: "NoSuchType"):  # noqa: F821
        pass
    with pytest.warns(jobq.AnnotationWarning, match="the annotation of unknown's a cannot be read"):
        jobq.worker("unknown")(unknown)

    def known_context(context: "jobq.Context", a: "NoSuchType"):  # noqa: F821
        return [context.job.id, a]
    assert testing.perform(jobq.worker("known_context", validate=False)(known_context), {"a": 1}).result == [1, 1]


def test_no_job_is_running():
    with pytest.raises(jobq.StateError, match="no job is running here"):
        jobq.current()


def test_the_module_of_the_same_name_is_no_trap():
    """`import jobq.worker` puts the module in the decorator's place."""
    done = subprocess.run([sys.executable, "-c", """
import jobq
import jobq.worker
@jobq.worker("a")
def a() -> int:
    return 1
print(jobq.handlers(), a())
"""], env={**os.environ, "PYTHONPATH": str(pathlib.Path(jobq.__file__).parents[1])}, capture_output=True, text=True)
    assert done.stdout == "{'a': <jobq.Handler a of a>} 1\n", done.stderr


def test_the_default_client_is_the_environments(db, monkeypatch):
    jobq.set_client(None)
    monkeypatch.setenv("DATABASE_URL", "host=/nonexistent")
    monkeypatch.setenv("JOBQ_DATABASE", db.uri)
    assert jobs.noop.enqueue().inserted
    jobq.get_client().close()


# ---- perform ----

def test_perform():
    assert testing.perform(jobs.echo, {"at": datetime.date(2031, 1, 1)}) == \
        testing.Performed("completed", {"at": "2031-01-01"})
    told = testing.perform("tell", {}, attempt=3, max_attempts=3, queue="q", meta={"m": 1}, id=7).result
    assert (told["id"], told["attempt"], told["last"], told["queue"], told["meta"]) == (7, 3, True, "q", {"m": 1})
    assert testing.perform(jobs.coroutine, {"n": 1}).result["n"] == 1
    with pytest.raises(jobq.InvalidError, match="no @jobq.worker function has the kind 'nope'"):
        testing.perform("nope")


@pytest.mark.parametrize("kind,args,state,delay", [
    ("snooze", {"seconds": 5}, "scheduled", 5), ("cancel", {}, "cancelled", None), ("discard", {}, "discarded", None),
    ("retry", {"after": 9}, "retryable", 9), ("retry", {}, "retryable", None), ("raise", {}, "retryable", 60),
    ("raise_by_attempt", {}, "retryable", 100), ("raise_by_list", {}, "retryable", 10), ("bad_result", {}, "completed", None),
])
def test_perform_tells_how_it_ended(kind, args, state, delay):
    done = testing.perform(kind, args)
    assert (done.state, done.delay) == (state, None if delay is None else datetime.timedelta(seconds=delay))
    assert done.error is not None


def test_perform_on_the_last_attempt_and_with_a_stop(tmp_path):
    assert testing.perform("raise", attempt=20).state == "discarded"
    once = testing.perform("raise", max_attempts=1)
    assert (once.state, once.delay) == ("discarded", None)
    assert testing.perform("raise_by_list", attempt=7).delay == datetime.timedelta(seconds=20)
    done = testing.perform("until_stopped", {"file": str(tmp_path / "f")}, stop=jobq.Stop.DRAIN)
    assert (done.state, done.progress) == ("scheduled", ((0.25, "waiting"),))


# ---- inline ----

def test_inline(db, client):
    with testing.inline() as ran:
        made = jobs.parent.enqueue(n=1)
        client.enqueue("echo", {"a": 1})
        client.enqueue_many([jobq.NewJob("noop"), {"kind": "snooze"}])
        with pytest.raises(ValueError, match="boom"):
            jobs.raises.enqueue()
        with pytest.raises(jobq.InvalidError, match="priority"):
            jobs.noop.options(priority=10).enqueue()
    assert [job.kind for job in ran] == ["parent", "noop", "echo", "noop", "snooze", "raise"]
    assert made.id > 0 and db.value("SELECT count(*) FROM jobq.jobs") == 0
    assert jobs.noop.enqueue().inserted and db.value("SELECT count(*) FROM jobq.jobs") == 1


# ---- what was enqueued ----

def test_assert_enqueued(client):
    soon = datetime.datetime.now(UTC) + datetime.timedelta(hours=1)
    jobs.echo.options(queue="media", priority=3, tags=["a", "b"], meta={"m": 1}, schedule_at=soon).enqueue(a=1, b=2)
    testing.assert_enqueued()
    testing.assert_enqueued(jobs.echo, {"a": 1}, meta={"m": 1}, queue="media", tags=["b"], priority=3, state="scheduled",
                            scheduled_after=soon, scheduled_before=soon + datetime.timedelta(seconds=1), client=client)
    with pytest.raises(AssertionError, match="echo"):
        testing.assert_enqueued("echo", {"a": 2})
    testing.refute_enqueued("echo", {"a": 2})
    with pytest.raises(AssertionError, match="echo"):
        testing.refute_enqueued("echo")
    assert (testing.count_enqueued("echo"), testing.count_enqueued("noop"), testing.count_enqueued()) == (1, 0, 1)
    with pytest.raises(jobq.InvalidError, match="state"):
        testing.assert_enqueued(state="open")
    with pytest.raises(jobq.InvalidError, match="args must be a JSON object"):
        testing.assert_enqueued(args=[1])


@pytest.mark.parametrize("make", [psycopg3, psycopg_2, sqlalchemy_session, sqlalchemy_connection, django_connection])
def test_in_the_applications_transaction(db, make):
    way = make(db)
    jobs.echo.options(connection=way.connection).enqueue(a=1)
    testing.assert_enqueued("echo", {"a": 1}, connection=way.connection)
    testing.refute_enqueued("echo")
    assert testing.drain(connection=way.connection).completed == 1
    testing.assert_enqueued("echo", state="completed", connection=way.connection)
    way.rollback()
    testing.refute_enqueued("echo", connection=way.connection)
    testing.refute_enqueued("echo", state="completed", connection=way.connection)
    way.rollback()
    way.close()


def test_a_connection_of_no_libpq_of_ours(db, monkeypatch):
    monkeypatch.setattr(jobq._connections, "one_libpq", lambda: False)
    with psycopg.connect(db.uri) as conn, pytest.raises(jobq.StateError, match="has two libpqs"):
        testing.assert_enqueued("echo", connection=conn)
    with pytest.raises(jobq.InvalidError, match="connection must be"):
        testing.assert_enqueued("echo", connection=object())


# ---- drain ----

def test_drain(db, client):
    jobs.parent.enqueue(n=1)
    jobs.raises.enqueue()
    for kind in ("snooze", "cancel", "discard", "exit"):
        client.enqueue(kind)
    client.enqueue("echo", queue="other")
    jobs.noop.options(schedule_in=60).enqueue()
    done = testing.drain()
    assert done == testing.Drained(completed=2, retryable=2, discarded=1, snoozed=1, cancelled=1, refused=0)
    assert done.total == 7
    errors = dict(db.query("SELECT kind, errors->0->>'error' FROM jobq.jobs WHERE state = 'retryable'"))
    assert errors == {"raise": "ValueError: boom", "exit": "RuntimeError: sys.exit(3) would have ended the worker"}
    assert testing.drain(with_scheduled=True, limit=1).total == 1
    assert testing.drain("other") == testing.Drained(1, 0, 0, 0, 0, 0)
    with pytest.raises(jobq.InvalidError, match="limit must be"):
        testing.drain(limit=-1)


def test_a_drain_that_is_not_recursive(client):
    jobs.parent.enqueue(n=1)
    assert testing.drain(recursive=False).total == 1
    testing.assert_enqueued("noop")


# ---- the pytest plugin ----

PLUGIN_TEST = """
import jobq
from jobq import testing

@jobq.worker("hello")
def hello(name: str) -> str:
    return f"hello {name}"

def test_one(jobq_client):
    job = hello.enqueue("you")
    testing.assert_enqueued(hello, {"name": "you"})
    assert testing.drain().completed == 1
    assert jobq_client.get(job).result == "hello you"

def test_two(jobq_client):
    testing.refute_enqueued()
    assert jobq_client.enqueue("hello", {"name": "two"}).inserted

def test_three(jobq_client):
    testing.refute_enqueued()
"""


def run_pytest(folder, **env):
    (folder / "test_app.py").write_text(PLUGIN_TEST)
    return subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "jobq.pytest_plugin", "-p", "no:cacheprovider", "-p", "no:xdist",
                           str(folder)], cwd=folder, capture_output=True, text=True, timeout=280,
                          env={**os.environ, "PYTHONPATH": str(pathlib.Path(jobq.__file__).parents[1]), **env})


def test_the_plugin(tmp_path, jobqd_program):
    done = run_pytest(tmp_path, JOBQ_JOBQD=jobqd_program)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_the_plugin_without_jobqd(tmp_path):
    done = run_pytest(tmp_path, PATH="/nonexistent")
    assert "the fixture jobq_database needs jobqd: install it, or name it in JOBQ_JOBQD" in done.stdout
    done = run_pytest(tmp_path, JOBQ_JOBQD="/bin/false")
    assert "jobqd exited with 1 instead of being ready" in done.stdout


# ---- perform ends as the daemon does ----

@pytest.fixture
def declare():
    from jobq.handlers import _handlers
    yield lambda function, **options: jobq.worker("performed", **options)(function)
    _handlers.pop("performed", None)


def test_perform_has_the_decorators_options(declare):
    def fails(context: jobq.Context) -> None:
        raise KeyError(context.job.queue, context.job.max_attempts)
    done = testing.perform(declare(fails, max_attempts=1, queue="media", backoff=5))
    assert (done.state, done.error.args, done.delay) == ("discarded", ("media", 1), None)
    assert testing.perform("performed", max_attempts=2, queue="q").error.args == ("q", 2)
    assert testing.perform("performed", max_attempts=2, queue="q").state == "retryable"


def test_perform_keeps_no_result_that_the_daemon_drops(declare):
    nested = []
    for _ in range(128):
        nested = [nested]
    for result, words in [("x" * 5_000_000, "the answer takes 50000[0-9]+ bytes, at most 4194304 are allowed"),
                          (nested, "at most 128 levels of nesting")]:
        done = testing.perform(declare(lambda result=result: result))
        assert (done.state, done.result) == ("completed", None)
        with pytest.raises(jobq.ResultError, match=words):
            raise done.error
    for result in ("x" * 4_194_270, nested[0], [[1], {"a": 2}]):
        done = testing.perform(declare(lambda result=result: result))
        assert (done.error, done.result) == (None, result)


@pytest.mark.parametrize("result", [jobq.Discard("x"), jobq.Retry(5), jobq.Cancel, ValueError("x")])
def test_an_exception_that_is_returned(declare, result):
    """The work is done and is not done again; why it has no result says what to do."""
    done = testing.perform(declare(lambda: result))
    assert (done.state, done.result, type(done.error)) == ("completed", None, jobq.ResultError)
    assert str(done.error) == f"the function returned {result!r}: raise it, do not return it"


class Later(jobq.Snooze):
    def __init__(self) -> None:
        pass


def test_perform_ends_what_fails_the_attempt_in_a_worker(declare):
    """CancelledError of the function's own is no Exception; a Snooze without a delay cannot be answered."""
    async def cancelled():
        raise asyncio.CancelledError("of its own")

    def snoozes():
        raise Later()

    snoozes.__qualname__ = cancelled.__qualname__  # declared again, as after a reload
    done = testing.perform(declare(cancelled, backoff=5))
    assert (done.state, type(done.error), done.delay) == ("retryable", asyncio.CancelledError, datetime.timedelta(seconds=5))
    assert testing.perform("performed", attempt=20).state == "discarded"
    done = testing.perform(declare(snoozes, backoff=5))
    assert (done.state, str(done.error), done.delay) == \
        ("retryable", "Later has no delay: its __init__ must call Snooze.__init__", None)
    assert testing.perform("performed", max_attempts=1).state == "discarded"
    assert testing.perform(declare(cancelled, discard_on=[asyncio.CancelledError])).state == "discarded"
