"""What is checked when a function is declared, and the warnings of what would be lost in silence. No database."""

import collections
import dataclasses
import datetime
import functools
import os
import pathlib
import subprocess
import sys
import textwrap
import types
import warnings
from typing import TYPE_CHECKING, Annotated, Any, DefaultDict, Dict, Generic, Iterator, List, NamedTuple, Optional, Set, TypedDict, TypeVar, Union

import pytest

import jobq
from jobq import testing
from jobq.handlers import check_job
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


T = TypeVar("T")


@dataclasses.dataclass
class Wrapped(Generic[T]):
    value: T


class Generates:
    def __call__(self) -> Iterator[int]:
        yield 1


class GeneratesLater:
    async def __call__(self) -> Any:
        yield 1


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
    (Generates(), "test_declared.Generates is a generator function"), (GeneratesLater(), "GeneratesLater is a generator function"),
    (functools.partial(Generates()), "test_declared.Generates is a generator function"),
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
    for kind in (str, int, bool, dict, type(None)):
        with pytest.raises(jobq.InvalidError, match=f"kind must be a class that JSON does not have itself, got <class '{kind.__name__}'>"):
            jobq.register_type(kind, encode=str, decode=kind)


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


def test_not_required_beneath_another_mark():
    """ReadOnly is typing_extensions' until Python 3.13."""
    module = types.ModuleType("beneath")
    sys.modules["beneath"] = module
    exec(textwrap.dedent("""
        from __future__ import annotations
        from typing import Annotated, Generic, TypedDict, TypeVar
        from typing_extensions import NotRequired, Required
        try:
            from typing_extensions import ReadOnly
        except ImportError:
            ReadOnly = NotRequired

        class Photo(TypedDict):
            path: str
            width: Annotated[NotRequired[int], "pixels"]
            height: ReadOnly[NotRequired[int]] if ReadOnly is not NotRequired else NotRequired[int]

        class Part(TypedDict, total=False):
            name: Annotated[Annotated[Required[str], "a"], "b"]

        def takes(photo: Photo, part: Part) -> None: ...
    """), module.__dict__)
    handler = declared(module.takes)
    assert handler.job({"path": "a"}, {"name": "b"}).args == {"photo": {"path": "a"}, "part": {"name": "b"}}
    with pytest.raises(jobq.InvalidError, match="args.part lacks 'name'"):
        handler.job({"path": "a"}, {})
    with pytest.raises(jobq.InvalidError, match="args.photo.width must be a whole number"):
        handler.job({"path": "a", "width": "1"}, {"name": "b"})


class TypeAliasType:
    """What `type When = datetime` makes in Python 3.12 and later, and typing_extensions before."""

    def __init__(self, value, *parameters):
        self._value, self.__type_params__ = value, parameters

    @property
    def __value__(self):
        return self._value() if isinstance(self._value, types.FunctionType) else self._value

    def __getitem__(self, args):
        return types.GenericAlias(self, args)

    def __call__(self):
        """typing asks for this."""


def test_an_alias_is_what_it_stands_for():
    When = TypeAliasType(datetime.datetime)
    ListOf = TypeAliasType(List[T], T)
    Tree = TypeAliasType(lambda: Union[Dict[str, Tree], List[Tree], When])
    hints = {"at": When, "perhaps": Optional[When], "many": ListOf[datetime.date], "by_id": Dict[TypeAliasType(int), int], "tree": Tree}

    def takes(at, perhaps=None, many=(), by_id={}, tree=[]):  # noqa: B006
        return [at.isoformat(), repr(perhaps), repr(many), repr(by_id), repr(tree)]
    takes.__annotations__.update(hints)
    handler = declared(takes)
    at, day = datetime.datetime(2031, 1, 1), datetime.date(2031, 1, 1)
    job = handler.job(at, perhaps=at, many=[day], by_id={1: 2}, tree={"a": [at, [at]]})
    assert testing.perform(handler, job.args).result == [at.isoformat(), repr(at), repr([day]), "{1: 2}", repr({"a": [at, [at]]})]
    for wrong, message in [({"at": "soon"}, "args.at must be a time"), ({"many": ["soon"]}, r"args.many\[0\] must be a date"),
                           ({"tree": {"a": [1]}}, "args.tree must be")]:
        with pytest.raises(jobq.InvalidError, match=message):
            handler.job(**{"at": at, **wrong})
    Nowhere = TypeAliasType(lambda: Unknown)  # noqa: F821

    def function(value):
        return value
    function.__annotations__["value"] = Nowhere
    with pytest.warns(jobq.AnnotationWarning, match="'Unknown' is not defined"):
        handler = declared(function)
    assert testing.perform(handler, {"value": "x"}).result == "x"


def test_what_annotated_says_may_be_unhashable():
    def takes(day: Annotated[datetime.date, []], many: List[Annotated[datetime.date, []]], one: Wrapped[Annotated[datetime.date, []]]) -> Any:
        return [repr(day), repr(many), repr(one.value)]
    day = datetime.date(2031, 1, 1)
    job = declared(takes).job(day, [day], Wrapped(day))
    assert testing.perform(declared(takes), job.args).result == [repr(day), repr([day]), repr(day)]


# ---- what a call is refused for, and what it is not ----

def with_context(context: jobq.Context, **data: Any) -> Any:
    return data


def with_context_by_position(context: jobq.Context, /, **data: Any) -> Any:
    return data


class Rest:
    def __call__(self, n: int = 1, **data: Any) -> Any:
        return data


def first_of(a: int, b: int, **data: Any) -> Any:
    return data


@pytest.mark.parametrize("function,name", [(with_context, "context"), (Rest(), "self"), (Rest().__call__, "self"), (functools.partial(first_of, 1, 2), "a")],
                         ids=["context", "object", "method", "partial"])
def test_a_name_that_is_taken_is_no_argument(function, name):
    """In a function with **data, which would be called with two values of it."""
    handler = declared(function)
    with pytest.raises(jobq.InvalidError, match=f"args have a member '{name}', and the function's {name} is given already"):
        handler.job(**{name: "x"})
    assert testing.perform(handler, {name: "x"}).state == "discarded"
    assert testing.perform(handler, {"other": "x"}).result == {"other": "x"}
    assert testing.perform(declared(with_context_by_position), {"context": "x"}).result == {"context": "x"}

    @functools.wraps(first_of)
    def wrapper(more=None, **kwargs):
        return more
    wrapper.__wrapped__ = lambda **data: data
    assert testing.perform(declared(wrapper), {"more": "x"}).result == "x"


def registered(monkeypatch, kind, encode, decode):
    from jobq import encoding
    monkeypatch.setitem(encoding._encoders, kind, encode)
    monkeypatch.setitem(encoding._decoders, kind, decode)


def test_a_known_type_may_be_registered(monkeypatch):
    """Both ways are the application's then."""
    registered(monkeypatch, datetime.datetime, lambda at: int(at.timestamp()), lambda n: datetime.datetime.fromtimestamp(n, datetime.timezone.utc))
    registered(monkeypatch, set, lambda items: {"items": sorted(items)}, lambda value: set(value["items"]))

    def function(at: datetime.datetime, items: set, typed: Set[int]) -> Any:
        return [at.isoformat(), isinstance(items, set), isinstance(typed, set)]
    handler = declared(function)
    job = handler.job(datetime.datetime(1970, 1, 2, tzinfo=datetime.timezone.utc), {1}, {2})
    assert job.args == {"at": 86400, "items": {"items": [1]}, "typed": {"items": [2]}}
    assert testing.perform(handler, job.args).result == ["1970-01-02T00:00:00+00:00", True, True]


class Away(Exception):
    """A database's, for a moment."""


@pytest.mark.parametrize("error,state", [(Away("no server"), "retryable"), (OSError("no server"), "retryable"), (ValueError("x"), "discarded"),
                                         (KeyError("x"), "discarded"), (AssertionError("x"), "discarded"), (ZeroDivisionError(), "discarded")])
def test_a_passing_failure_of_a_decoder_is_tried_again(error, state, monkeypatch):
    """So too of what a class does when it is made."""
    def fail(*_):
        raise error

    class Photo:
        pass

    class Text(str):
        __new__ = fail

    @dataclasses.dataclass
    class Row:
        n: int
        __post_init__ = fail
    registered(monkeypatch, Photo, id, fail)
    for kind, value in [(Photo, 1), (Text, "a"), (Row, {"n": 1})]:
        def function(value) -> None:
            """Takes it."""
        function.__annotations__["value"] = kind
        done = testing.perform(declared(function), {"value": value})
        assert (kind, done.state) == (kind, state)
        assert done.error is error if state == "retryable" else isinstance(done.error, jobq.ArgumentError)


class Array:
    """Compared as numpy's is."""

    def __init__(self, items):
        self.items = list(items)

    def __eq__(self, other):
        return Array(a == b for a, b in zip(self.items, other.items))

    def __bool__(self):
        raise ValueError("the truth value of an array is ambiguous")


class Pair(NamedTuple):
    first: Any
    second: List[str]


def test_what_has_no_plain_equality(monkeypatch):
    def function(value: Array) -> None:
        """Takes it."""
    registered(monkeypatch, Array, lambda array: array.items, Array)
    assert declared(function).job(Array([1, 2])).args == {"value": [1, 2]}
    registered(monkeypatch, Array, lambda array: array.items, lambda items: Array(items[1:]))
    with pytest.raises(jobq.InvalidError, match="args.value would arrive as Array"):
        declared(function).job(Array([1, 2]))

    def pairs(value: Pair, plain: Any = None) -> None:
        """Takes one."""
    assert declared(pairs).job(Pair((1, 2), ("a",))).args == {"value": [[1, 2], ["a"]]}
    with pytest.raises(jobq.InvalidError, match=r"args.value\[1\]\[0\] would arrive as str '/a', not as PosixPath"):
        declared(pairs).job(Pair(1, [pathlib.Path("/a")]))


def test_the_form_of_a_name_in_json_may_be_given():
    def function(value: Dict[int, Any], more: Any = None) -> Any:
        return {"value": repr(value), "more": more}
    job = declared(function).job({"7": 1}, more={1: "a", "2": "b"})
    assert testing.perform(declared(function), job.args).result == {"value": "{7: 1}", "more": {"1": "a", "2": "b"}}


def test_a_type_of_an_optional_is_named_by_its_place():
    def function(value: Optional[Dict[str, List[str]]]) -> None:
        """Takes it."""
    with pytest.raises(jobq.InvalidError, match=r"args.value.a\[0\] would arrive as str '/b', not as PosixPath"):
        declared(function).job({"a": [pathlib.Path("/b")]})


@pytest.mark.parametrize("value", [{1: "a", "1": "b"}, {"deep": ({True: 1, "true": 2},)}, {"box": types.MappingProxyType({None: 1, "null": 2})}], ids=repr)
def test_members_of_the_same_name_are_refused_by_name_too(taken, value):
    with jobq.Client("host=/nonexistent") as client:
        for args in ({"kind": "unknown", "args": value}, {"kind": "unknown", "meta": value}):
            with pytest.raises(jobq.InvalidError, match=r"(args|meta)(\.deep\[0\]|\.box|) cannot be written as JSON: two members of an object have the name '(1|true|null)'"):
                check_job(jobq.NewJob(**args))
        with pytest.raises(jobq.InvalidError, match="two members of an object have the name"):
            client.enqueue_job(declared(lambda value: None).job(value))
    done = testing.perform(declared(lambda: value))
    assert (done.state, done.result, type(done.error)) == ("completed", None, jobq.ResultError)


def test_a_pydantic_model_with_aliases():
    """It is written by its members' names, so its validation must take these."""
    pydantic = pytest.importorskip("pydantic")

    class ByAlias(pydantic.BaseModel):
        user_id: int = pydantic.Field(alias="userId")

    class ByName(ByAlias):
        class Config:
            allow_population_by_field_name = True
            populate_by_name = True

    def function(value: ByName) -> int:
        return value.user_id

    def refused(value: ByAlias) -> int:
        return value.user_id
    handler = declared(function)
    assert handler.job(ByName(user_id=1)).args == {"value": {"user_id": 1}}
    assert testing.perform(handler, {"value": {"user_id": 1}}).result == 1
    with pytest.raises(jobq.InvalidError, match="(?s)args.value is no ByAlias: .*userId"):
        declared(refused).job(ByAlias(userId=1))


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


@pytest.mark.parametrize("cause,level", [(None, "WARNING"), (KeyError("x"), "ERROR")])
def test_the_log_of_a_retry(caplog, cause, level):
    """On the last attempt too."""
    from jobq import hooks

    def fails(context: jobq.Context) -> None:
        try:
            raise jobq.Retry(after=60) from cause
        except jobq.Retry as error:
            hooks.tell(context, error)  # as a worker does
    testing.perform(declared(fails), attempt=1, max_attempts=1)
    [record] = [record for record in caplog.records if record.name == "jobq.worker"]
    assert (record.levelname, record.exc_info and record.exc_info[1]) == (level, cause)


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


# ---- keys that no job has ----

def syncs(account: int, force: bool = False) -> None:
    """Takes two."""


def takes_any(account: int, **more: Any) -> None:
    """And more."""


def by(*keys, fields=("kind", "args")):
    return jobq.Unique(fields=fields, keys=keys)


@pytest.mark.parametrize("function,unique,meta,message", [
    (syncs, by("account", "acount"), None, r"unique.keys\[1\] must be a parameter of syncs \(account, force\), got 'acount'"),
    (lambda: None, by("a"), None, r"unique.keys\[0\] must be a parameter of .* \(it has none\), got 'a'"),
    (syncs, by("tenant", fields=("kind", "args", "meta")), {"tenat": 1},
     r"must be a parameter of syncs \(account, force\) or a member of meta \(tenat\), got 'tenant'"),
    (takes_any, by("tenant", fields=("kind", "meta")), None, r"must be a member of meta \(it has none\), got 'tenant'"),
])
def test_a_unique_key_that_no_job_has_is_refused(function, unique, meta, message):
    """All jobs would be equal, in silence."""
    with pytest.raises(jobq.InvalidError, match=message):
        declared(function, unique=unique).options(meta=meta).job(**({} if function.__name__ == "<lambda>" else {"account": 1}))
    with pytest.raises(jobq.InvalidError, match=message):
        declared(function).options(unique=unique, meta=meta).job(**({} if function.__name__ == "<lambda>" else {"account": 1}))


def test_a_misspelt_unique_key_is_refused_when_the_function_is_declared():
    with pytest.raises(jobq.InvalidError, match="unique.keys"):
        declared(syncs, unique=by("acount"))
    with pytest.raises(jobq.InvalidError, match="unique.keys"):
        declared(syncs, unique=by("tenant", fields=("kind", "args", "meta"))).job(1)


@pytest.mark.parametrize("function,unique,meta", [
    (syncs, by("force"), None), (takes_any, by("whatever"), None), (syncs, by("x", fields=("kind",)), None), (syncs, True, None),
    (syncs, by("account", "tenant", fields=("args", "meta")), {"tenant": 1})])
def test_a_unique_key_that_a_job_can_have(function, unique, meta):
    for handler in (declared(function, unique=unique), declared(function)):
        assert handler.options(unique=unique, meta=meta).job(1).unique == unique


# ---- time limits that never count ----

def test_a_soft_timeout_that_never_fires_is_refused():
    for timeout in (20, datetime.timedelta(seconds=20)):
        with pytest.raises(jobq.InvalidError, match=r"soft_timeout must be less than timeout \(20\), got 30"):
            declared(syncs, soft_timeout=30, timeout=timeout)
    with pytest.raises(jobq.InvalidError, match=r"soft_timeout must be less than timeout \(20\), got 20"):
        declared(syncs, soft_timeout=20, timeout=20)
    handler = declared(syncs, soft_timeout=19.5, timeout=20)
    with pytest.raises(jobq.InvalidError, match=r"timeout must be more than the function's soft_timeout \(19.5\), got 10"):
        handler.options(timeout=10)
    assert handler.options(timeout=60).job(1).timeout == 60
    assert declared(syncs, soft_timeout=30).options(timeout=None).job(1).timeout is None


def test_a_reason_in_place_of_a_delay():
    with pytest.raises(jobq.InvalidError, match=r"after must be a timedelta or a number of seconds, got 'rate limited'; a reason "
                                                r"is given by its name: jobq.Retry\(after=60, reason='rate limited'\)"):
        jobq.Retry("rate limited")


def test_exceptions_have_public_names():
    """As they stand in stored errors."""
    import pickle
    for name in jobq.__all__:
        each = getattr(jobq, name)
        if isinstance(each, type) and issubclass(each, BaseException):
            assert f"{each.__module__}.{each.__qualname__}" == f"jobq.{name}"
    assert pickle.loads(pickle.dumps(jobq.NotFoundError("x"))).args == ("x",)


def test_outcomes_are_copied_and_pickled():
    import copy
    import pickle

    class Busy(jobq.Retry):
        def __init__(self, load, *, host):
            super().__init__(load * 10, f"{host} is busy")
            self.host = host

    outcomes = [jobq.Retry(3, "x"), jobq.Retry(), jobq.Snooze(5), jobq.Discard("x"), jobq.Discard(), jobq.Cancel("x"), jobq.SoftTimeout()]
    for outcome in outcomes:
        for each in (copy.copy(outcome), copy.deepcopy(outcome), pickle.loads(pickle.dumps(outcome))):
            assert (type(each), str(each), vars(each)) == (type(outcome), str(outcome), vars(outcome))
    busy = copy.copy(Busy(2, host="a"))
    assert (busy.after_ms, busy.reason, busy.host, str(busy)) == (20000, "a is busy", "a", "a is busy")


class Lists(DefaultDict[str, List[int]]):
    def __init__(self, items=()):
        super().__init__(list, items)


class Words(DefaultDict[str, int]):
    """It has no factory of its own."""


def test_a_defaultdict_is_refused_when_it_is_declared():
    """JSON has no default_factory."""
    for kind, name in [(DefaultDict[str, int], "DefaultDict"), (collections.defaultdict, "defaultdict"), (Words, "Words")]:
        def takes(m):
            pass

        takes.__annotations__ = {"m": kind}
        with pytest.raises(jobq.InvalidError, match=rf"^takes's m cannot be a job's argument: {name}.* would arrive without its default_factory, "
                                                    r"which JSON does not carry \(use a dict\)"):
            declared(takes)

    def returns():
        return collections.defaultdict(int, a=1)

    for kind in (DefaultDict[str, int], collections.defaultdict, Words, List[collections.defaultdict]):
        returns.__annotations__ = {"return": kind}
        assert testing.perform(declared(returns)).result == {"a": 1}

    def counts(m: Lists, n: Dict[str, int]) -> list:
        return [m, m["new"], n]

    job = declared(counts).job(Lists({"a": [1]}), collections.defaultdict(int, b=2))
    assert testing.perform("declared", job.args).result == [{"a": [1], "new": []}, [], {"b": 2}]
