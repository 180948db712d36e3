"""What is checked when a function is declared, and the warnings of what would be lost in silence. No database."""

import datetime
import functools
import os
import pathlib
import subprocess
import sys
import textwrap
import types
import warnings
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, TypedDict

import pytest

import jobq
from jobq import testing
from jobq.validation import Parameters

if TYPE_CHECKING:
    from nowhere import Unknown


def declared(function, kind="declared", **options):
    from jobq import _connections  # noqa: F401
    sys.modules["jobq.handlers"]._handlers.pop(kind, None)
    return jobq.worker(kind, **options)(function)


# ---- E13: parameters and what is no function ----

def test_an_argument_named_self():
    def takes(self: int, cls: int = 2) -> List[int]:
        return [self, cls]
    handler = declared(takes)
    assert handler(self=1) == [1, 2]
    assert handler.job(self=1).args == handler.options(priority=1).job(self=1).args == {"self": 1}
    assert testing.perform(handler, {"self": 3}).result == [3, 2]


class Owner:
    def method(self, n: int) -> int:
        return n

    @staticmethod
    def static(n: int) -> int:
        return n

    def __call__(self, n: int) -> int:
        return n + 1

    async def later(self, n: int) -> int:
        return n


def late_context(n: int, context: jobq.Context) -> int:
    return n


def named_context(*, context: jobq.Context) -> None:
    """By name alone."""


def returns_iterator() -> Iterator[int]:
    return iter([1])


def returns_some_bytes() -> Optional[Dict[str, bytes]]:
    return None


def takes_bytes(data: bytes) -> None:
    """Never possible."""


@pytest.mark.parametrize("function,message", [
    (Owner.method, "test_declared.Owner.method is a method, and a job has no object to call it on"),
    (staticmethod(late_context), "is a staticmethod; write @staticmethod above @jobq.worker"),
    (Owner, "Owner is a class; declare a function"), (3, "is no function"),
    (late_context, "late_context's context is context, but only the first parameter can be the context"),
    (named_context, "named_context takes its context by name only"),
    (returns_iterator, "returns_iterator returns what cannot be a job's result: .*Iterator.* has no JSON form"),
    (returns_some_bytes, "returns_some_bytes returns what cannot be a job's result: bytes has no JSON form"),
    (takes_bytes, "takes_bytes's data cannot be a job's argument: bytes has no JSON form .*; hand over what identifies it"),
])
def test_what_can_be_no_job_is_refused_when_it_is_declared(function, message):
    with pytest.raises(jobq.InvalidError, match=message):
        declared(function)


def test_what_can_be_called_is_a_function():
    """Partials and objects, with their annotations."""
    def add(a: int, b: datetime.date, c: int = 3) -> List[Any]:
        return [a, b, c]
    handler = declared(functools.partial(add, 1, c=4))
    assert testing.perform(handler, {"b": "2031-01-01"}).result == [1, "2031-01-01", 4]
    with pytest.raises(jobq.InvalidError, match="args.b must be a date") as caught:
        handler.job("x")
    assert not isinstance(caught.value, jobq.ArgumentError), "that would discard the job whose function makes this one"
    assert testing.perform(declared(Owner()), {"n": 1}).result == 2
    assert testing.perform(declared(Owner().method), {"n": 1}).result == 1
    assert testing.perform(declared(Owner().later), {"n": 1}).result == 1
    assert testing.perform(declared(Owner.static), {"n": 1}).result == 1
    assert "partial" in repr(handler)


def test_attributes_of_what_is_called_are_not_the_handlers():
    """A callable object's own client, say, is not the one that enqueues; what the handler does not have itself is passed on."""
    class Uploads:
        def __init__(self):
            self.client = self.backoff = self.concurrency = self.discard_on = self.defaults = self.parameters = self.job = "s3"
            self.bucket = "photos"

        def __call__(self, n: int) -> str:
            return f"{self.client} {n}"
    handler = declared(Uploads(), concurrency=4, backoff=60)
    assert (handler.client, handler.concurrency, handler.backoff(1), handler.bucket) == (None, 4, 60, "photos")
    assert handler.job(3).args == {"n": 3}
    assert testing.perform(handler, {"n": 3}).result == "s3 3"


def test_a_context_may_be_optional():
    def function(context: Optional[jobq.Context], n: int) -> int:
        return context.job.id + n
    assert testing.perform(declared(function), {"n": 1}).result == 2


def test_declared_while_the_clock_is_held(monkeypatch):
    """freezegun puts classes of its own in the place of datetime's while a test runs."""
    frozen = types.ModuleType("freezegun.api")
    exec("import datetime\nclass FakeDatetime(datetime.datetime): pass\nclass FakeDate(datetime.date): pass", frozen.__dict__)
    real = datetime.datetime
    monkeypatch.setattr(datetime, "datetime", frozen.FakeDatetime)

    def function(at: datetime.datetime, day: frozen.FakeDate) -> str:
        return f"{type(at).__name__} {at.isoformat()} {day.isoformat()}"
    handler = declared(function)
    monkeypatch.setattr(datetime, "datetime", real)
    assert testing.perform(handler, {"at": "2031-01-01T00:00:00Z", "day": "2031-01-02"}).result == "datetime 2031-01-01T00:00:00+00:00 2031-01-02"


def test_options_are_checked():
    for options, message in [({"discard_on": KeyError}, "discard_on must be a sequence of exception classes"),
                             ({"discard_on": ["KeyError"]}, "discard_on must be a sequence"), ({"soft_timeout": 0}, "soft_timeout must be from"),
                             ({"soft_timeout": "1s"}, "soft_timeout must be a timedelta")]:
        with pytest.raises(jobq.InvalidError, match=message):
            declared(lambda: None, **options)
    for wrong in (3, Owner().later):
        with pytest.raises(jobq.InvalidError, match="on_error decorates"):
            jobq.on_error(wrong)
        with pytest.raises(jobq.InvalidError, match="middleware decorates"):
            jobq.middleware(wrong)
    with pytest.raises(jobq.InvalidError, match="kind must be a class"):
        jobq.register_type("Money", encode=str)


# ---- E10: annotations that are text, or not there ----

def test_names_under_type_checking_cost_their_own_check_alone():
    def function(context: "jobq.Context", a: "Unknown", n: int, more: "List[Unknown]" = ()) -> "Unknown":  # noqa: F821
        return [a, n]
    with pytest.warns(jobq.AnnotationWarning) as told:
        handler = declared(function)
    assert [str(warning.message).split(" cannot")[0] for warning in told] == [
        "the annotation of function's a", "the annotation of function's more"]
    assert handler.parameters.takes_context
    assert testing.perform(handler, {"a": {"x": 1}, "n": 2}).result == [{"x": 1}, 2]
    with pytest.raises(jobq.InvalidError, match="args.n must be a whole number"):
        handler.job(1, "2")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        declared(function, validate=False)


def test_not_required_where_annotations_are_text():
    """As under `from __future__ import annotations`; also as Python before 3.11 has it, from typing_extensions."""
    module = types.ModuleType("annotated")
    sys.modules["annotated"] = module
    exec(textwrap.dedent("""
        from __future__ import annotations
        from typing import TypedDict
        from typing_extensions import NotRequired, Required

        class Photo(TypedDict):
            path: str
            width: NotRequired[int]

        class Partial(Photo, total=False):
            name: Required[str]
            size: int

        def takes(photo: Photo, part: Partial) -> None: ...
    """), module.__dict__)
    convert = Parameters(module.takes, jobq.Context, True).convert
    good = {"photo": {"path": "a"}, "part": {"path": "b", "name": "c"}}
    assert convert(good) == good
    assert convert({**good, "photo": {"path": "a", "width": 1}})
    for change, message in [({"photo": {}}, "args.photo lacks 'path'"), ({"part": {"path": "b"}}, "args.part lacks 'name'"),
                            ({"photo": {"path": "a", "width": "1"}}, "args.photo.width must be a whole number")]:
        with pytest.raises(jobq.ArgumentError, match=message):
            convert({**good, **change})


# ---- E14: what would be ignored ----

@pytest.fixture
def taken():
    """The jobs that a block enqueues, which go nowhere."""
    from jobq.client import instead
    jobs = []

    def take(job):
        jobs.append(job)
        return jobq.Enqueued(len(jobs))
    with instead(take):
        yield jobs


def test_a_known_kind_by_name_warns_of_what_its_decorator_says(taken):
    handler = declared(lambda n=1: None, queue="media", max_attempts=3)
    with jobq.Client("host=/nonexistent") as client:
        with pytest.warns(jobq.IgnoredOptionsWarning, match="'declared' is enqueued by name, without its decorator's queue='media', max_attempts=3: call") as told:
            client.enqueue("declared")
        assert told[0].filename == __file__
        with pytest.warns(jobq.IgnoredOptionsWarning, match="max_attempts=3"):
            client.enqueue_many([{"kind": "declared", "queue": "other"}])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            client.enqueue("declared", queue="other", max_attempts=5)
            client.enqueue("unknown")
            client.enqueue_job(handler.job())
            client.enqueue_job(handler.options(queue="default").job())
    assert len(taken) == 6


def test_the_encoder_hook():
    class Grams:
        def __init__(self, n):
            self.n = n

        def __eq__(self, other):
            return self.n == other.n
    with pytest.raises(jobq.InvalidError, match="Grams .* has no JSON form"):
        declared(lambda value: None).job(Grams(1))
    jobq.register_type(Grams, encode=lambda value: value.n, decode=lambda n: Grams(n))

    def weigh(value: Grams) -> Grams:
        return Grams(value.n * 2)
    handler = declared(weigh)
    assert handler.job(Grams(2)).args == {"value": 2}
    assert testing.perform(handler, {"value": 2}).result == 4


def test_perform_says_what_a_worker_would():
    def returns_bytes() -> Any:
        return b"a"
    done = testing.perform(declared(returns_bytes))
    assert (done.state, done.result, type(done.error)) == ("completed", None, jobq.ResultError)
    with testing.inline(), pytest.raises(jobq.ResultError):
        jobq.get_client().enqueue_job(declared(returns_bytes).job())

    def fails(n: int) -> None:
        raise KeyError(n)
    assert testing.perform(declared(fails, discard_on=[KeyError]), {"n": 1}).state == "discarded"
    assert testing.perform(declared(fails), {"n": 1}).state == "retryable"
    assert testing.perform(declared(fails), {"n": "1"}).state == "discarded"


def test_a_generator_of_very_many_jobs_is_not_kept():
    """E13. 200,000 jobs took 255 MB; what C is given takes a third of it."""
    code = """
import resource
import jobq
from jobq import _operations
from jobq.client import new_jobs
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
jobs = ({"kind": "mail", "args": {"to": i, "name": "x" * 20}} for i in range(100_000))
_operations.enqueue_many(None, new_jobs(jobs))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=True, env={
        **os.environ, "PYTHONPATH": str(pathlib.Path(jobq.__file__).parents[1])})
    assert int(done.stdout) < 60


@pytest.mark.parametrize("wrong", [{"kind": "a"}, jobq.NewJob("a"), "a", 3], ids=repr)
def test_jobs_must_be_many(wrong):
    with jobq.Client("host=/nonexistent") as client, pytest.raises(jobq.InvalidError, match="jobs must be an iterable of jobs, got"):
        client.enqueue_many(wrong)
