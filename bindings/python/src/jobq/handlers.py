"""Functions that are jobs: ``@jobq.worker``."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Callable, Dict, Generic, Optional, Sequence, Set, Type, TypeVar, Union, overload

from . import encoding
from ._annotations import name_of
from ._pool import conninfo
from .client import Client, of_handler, set_declared
from .context import Context
from .errors import InvalidError
from .model import DELAY_MOST_MS, Enqueued, NewJob, Seconds, Unique, milliseconds, seconds
from .validation import ArgumentError, Parameters

if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec

    P = ParamSpec("P")
else:
    P = TypeVar("P")

R = TypeVar("R")

#: After which delay a failed attempt is tried again: one for all, one for each attempt (the last for those beyond), or a
#: function of the attempt's number.
Backoff = Union[Seconds, Sequence[Seconds], Callable[[int], Seconds]]

#: By kind.
_handlers: "Dict[str, Handler[Any, Any]]" = {}


# ---- the client for .enqueue() ----

_client_lock = threading.Lock()
_client: Optional[Client] = None


def _in_child() -> None:
    """Another thread of the parent's may have held the lock."""
    global _client_lock
    _client_lock = threading.Lock()


os.register_at_fork(after_in_child=_in_child)


def set_client(client: Optional[Client]) -> None:
    """The client by which ``.enqueue()`` of decorated functions enqueues; None: as if none had been set."""
    global _client
    with _client_lock:
        _client = client


#: Variables that name the database, the first that is set.
_ADDRESSES = ("JOBQ_DATABASE", "DATABASE_URL")


def get_client() -> Client:
    """That client. Where none was set it is one on the database that ``JOBQ_DATABASE`` or ``DATABASE_URL`` names, else
    libpq's ``PG*`` environment; ``JOBQ_SCHEMA`` names its schema."""
    global _client
    with _client_lock:
        if _client is None:
            name = next((name for name in _ADDRESSES if os.environ.get(name)), None)
            if name is not None:
                conninfo(os.environ[name], name)
            _client = Client(os.environ[name] if name else None, schema=os.environ.get("JOBQ_SCHEMA"))
            _client._pool.no_database = f"neither {' nor '.join(_ADDRESSES)} is set"
        return _client


# ---- a function that is a job ----


def _delays(backoff: Optional[Backoff]) -> Optional[Callable[[int], Seconds]]:
    """A back-off as a function of the attempt's number."""
    if backoff is None or callable(backoff):
        return backoff
    if isinstance(backoff, Sequence):
        if not backoff or isinstance(backoff, str):
            raise InvalidError(f"backoff must be seconds, a sequence of them or a function, got {backoff!r}")
        delays = list(backoff)
        for i, delay in enumerate(delays):
            milliseconds(delay, f"backoff[{i}]", 0, DELAY_MOST_MS)
        return lambda attempt: delays[min(attempt, len(delays)) - 1]
    milliseconds(backoff, "backoff", 0, DELAY_MOST_MS)
    constant = backoff
    return lambda attempt: constant


def _fields_of(job: NewJob) -> Sequence[str]:
    """Those of args and meta by which the job is unique."""
    return [field for field in job.unique.fields if field in ("args", "meta")] if isinstance(job.unique, Unique) else []


class Handler(Generic[P, R]):
    """A function with what it is as a job. Called, it is the function; :meth:`enqueue` makes a job of the call."""

    def __init__(
        self,
        function: Callable[..., R],
        defaults: NewJob,
        backoff: Optional[Backoff],
        client: Optional[Client],
        validate: bool,
        concurrency: Optional[int],
        discard_on: Sequence[Type[BaseException]] = (ArgumentError,),
        soft_timeout: Optional[Seconds] = None,
    ) -> None:
        self.function = function
        self.defaults = defaults
        self.backoff = _delays(backoff)
        self.client = client
        self.concurrency = concurrency
        self.discard_on = tuple(discard_on)
        self.soft_timeout_s = None if soft_timeout is None else milliseconds(soft_timeout, "soft_timeout", 1) / 1000
        if self.soft_timeout_s is not None and defaults.timeout is not None:
            timeout_s = seconds(defaults.timeout, "timeout")
            if self.soft_timeout_s >= timeout_s:
                raise InvalidError(f"soft_timeout must be less than timeout ({timeout_s:g}), got {self.soft_timeout_s:g}")
        self.parameters = Parameters(function, Context, validate)
        self.is_coroutine = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)
        )
        if "meta" not in _fields_of(defaults):  # which .options() may give
            self.check_unique(defaults)
        functools.update_wrapper(self, function, updated=())
        for name, value in getattr(function, "__dict__", {}).items():
            if not hasattr(self, name):  # a callable object may have a `client` or a `backoff` of its own
                setattr(self, name, value)

    @property
    def kind(self) -> str:
        """The job's kind."""
        return self.defaults.kind

    def __call__(self, /, *args: Any, **kwargs: Any) -> R:
        return self.function(*args, **kwargs)

    def check_unique(self, job: NewJob) -> None:
        """Raises InvalidError for a key of ``unique`` that no job of the function can have: all jobs would be equal."""
        fields = _fields_of(job)
        if not fields or not isinstance(job.unique, Unique) or not job.unique.keys:
            return
        members: Set[str] = set()
        places = []
        if "args" in fields:
            if self.parameters.names is None:
                return  # it takes any
            members.update(self.parameters.names)
            places.append(f"a parameter of {name_of(self.function)} ({', '.join(self.parameters.names) or 'it has none'})")
        if "meta" in fields:
            meta = {} if job.meta is None else encoding.loads(encoding.dump_object(job.meta, "meta"))
            members.update(meta)
            places.append(f"a member of meta ({', '.join(meta) or 'it has none'})")
        for i, key in enumerate(job.unique.keys):
            if key not in members:
                raise InvalidError(f"unique.keys[{i}] must be {' or '.join(places)}, got {key!r:.100}")

    def job(self, /, *args: P.args, **kwargs: P.kwargs) -> NewJob:
        """The call as a job that is not enqueued yet: for :meth:`jobq.Client.enqueue_many`. InvalidError when the function
        would not take the arguments, or would get others than these."""
        self.check_unique(self.defaults)
        return of_handler(dataclasses.replace(self.defaults, args=self.parameters.bind(args, kwargs)))

    def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Enqueued:
        """Enqueues the call, with the decorator's options and client. See :meth:`options` for others."""
        return self.options().enqueue(*args, **kwargs)

    def options(self, *, client: Optional[Client] = None, connection: Any = None, **options: Any) -> "Call[P, R]":
        """The function with other options, those of :class:`jobq.NewJob`: ``resize.options(schedule_in=60).enqueue(path)``.
        ``connection``: the application's own, see :class:`jobq.Client`."""
        known = {field.name for field in dataclasses.fields(NewJob)} - {"kind", "args"}
        for name in options:
            if name not in known:
                raise InvalidError(f"there is no option {name!r}; allowed are {', '.join(sorted(known))}")
        defaults = dataclasses.replace(self.defaults, **options)
        if self.soft_timeout_s is not None and defaults.timeout is not None:
            timeout_s = seconds(defaults.timeout, "timeout")
            if timeout_s <= self.soft_timeout_s:
                raise InvalidError(f"timeout must be more than the function's soft_timeout ({self.soft_timeout_s:g}), got {timeout_s:g}")
        return Call(self, defaults, client, connection)

    def __repr__(self) -> str:
        return f"<jobq.Handler {self.kind} of {getattr(self.function, '__qualname__', self.function)}>"


class Call(Generic[P, R]):
    """A decorated function with options for one call, or several."""

    def __init__(self, handler: Handler[P, R], defaults: NewJob, client: Optional[Client], connection: Any) -> None:
        self._handler = handler
        self._defaults = defaults
        self._client = client
        self._connection = connection

    def job(self, /, *args: P.args, **kwargs: P.kwargs) -> NewJob:
        """As :meth:`Handler.job`."""
        self._handler.check_unique(self._defaults)
        return of_handler(dataclasses.replace(self._defaults, args=self._handler.parameters.bind(args, kwargs)))

    def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Enqueued:
        """As :meth:`Handler.enqueue`."""
        job = self.job(*args, **kwargs)
        client = self._client or self._handler.client or get_client()
        return client.enqueue_job(job, connection=self._connection)


class _Decorator:
    """``worker(…)``: the type of what decorates. A first parameter that is the context is no argument of the job."""

    def __init__(self, make: Callable[[Callable[..., Any]], Any]) -> None:
        self._make = make

    @overload
    def __call__(self, function: "Callable[Concatenate[Context, P], R]") -> "Handler[P, R]": ...

    @overload
    def __call__(self, function: "Callable[P, R]") -> "Handler[P, R]": ...

    def __call__(self, function: Callable[..., Any]) -> Any:
        return self._make(function)


def worker(
    kind: str,
    *,
    queue: str = "default",
    priority: int = 0,
    max_attempts: Optional[int] = None,
    timeout: Optional[Seconds] = None,
    backoff: Optional[Backoff] = None,
    unique: Union[Unique, bool, None] = None,
    tags: Sequence[str] = (),
    client: Optional[Client] = None,
    validate: bool = True,
    concurrency: Optional[int] = None,
    discard_on: Sequence[Type[BaseException]] = (ArgumentError,),
    soft_timeout: Optional[Seconds] = None,
) -> _Decorator:
    """Makes a function, or a coroutine function, the handler of a kind of job, and gives it ``.enqueue()``.

    ``queue`` … ``tags``: what its jobs have when ``.options()`` says nothing else; see :class:`jobq.NewJob`. They belong to the
    job, and ``.enqueue()`` sets them: a job of this kind from a cron, ``jobqd enqueue``, SQL or ``client.enqueue("resize")``
    has the ``timeout`` and ``max_attempts`` of its queue. The other options hold for every job that the function runs.

    ``backoff``: the
    delay after a failed attempt: seconds, a sequence of them (the last for all attempts beyond), or a function of the
    attempt's number; None: the queue's formula. ``client``: enqueues; None: :func:`jobq.get_client`. ``validate``: whether
    annotations are checked when the function is declared, a job's arguments when it is made, and both converted before the
    function runs. ``concurrency``: how many of these jobs one worker process runs at a time, 1 to 1000, coroutines on its event
    loop and plain functions in threads; None: one, or for a coroutine as many as the process runs (the largest
    ``concurrency`` of its functions, or ``--concurrency``).

    ``discard_on``: exceptions that no further attempt can avoid: the job is discarded at once. As given, it replaces the
    default: name :class:`jobq.ArgumentError` (the job's arguments are not what the function takes) again, or leave it out
    where an old worker may meet a new release's jobs. ``soft_timeout``: after this time :class:`jobq.SoftTimeout` is raised
    in the function, which can put things in order before its ``timeout`` ends it; uncaught it fails the attempt. It must be
    less than ``timeout``.

    Raises :class:`InvalidError`: the kind has a handler already, or an option is wrong.
    """
    if not isinstance(kind, str):
        raise InvalidError(f"kind must be a str, as in @jobq.worker(\"resize\"), got {kind!r:.100}")
    for error in discard_on if isinstance(discard_on, (list, tuple, set, frozenset)) else (discard_on,):
        if not (isinstance(error, type) and issubclass(error, BaseException)) or isinstance(discard_on, type):
            raise InvalidError(f"discard_on must be a sequence of exception classes, got {discard_on!r:.100}")
    defaults = NewJob(
        kind, queue=queue, priority=priority, max_attempts=max_attempts, timeout=timeout, unique=unique, tags=tags
    )
    check_job(defaults)
    if concurrency is not None and (isinstance(concurrency, bool) or not isinstance(concurrency, int) or not 1 <= concurrency <= 1000):
        raise InvalidError(f"concurrency must be 1 to 1000, got {concurrency!r}")

    def make(function: Callable[..., Any]) -> Handler[Any, Any]:
        _refuse(kind, function)
        if _generates(function):
            raise InvalidError(f"kind {kind!r}: {'.'.join(_place(function))} is a generator function: nobody would run its body")
        there = _handlers.get(kind)
        if there is not None and _place(there.function) != _place(function):
            raise InvalidError(f"kind {kind!r} has a handler already: {'.'.join(_place(there.function))}")
        handler: Handler[Any, Any] = Handler(
            function, defaults, backoff, client, validate, concurrency, tuple(discard_on), soft_timeout
        )
        _handlers[kind] = handler
        set_declared(defaults)
        return handler

    return _Decorator(make)


def _generates(function: Any) -> bool:
    """A generator function, or an object with one as its __call__."""
    while isinstance(function, functools.partial):
        function = function.func
    return any(
        inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each)
        for each in (function, getattr(type(function), "__call__", None))
    )


def _refuse(kind: str, function: Any) -> None:
    """Raises InvalidError for what cannot be called as a function is."""
    what = None
    if isinstance(function, (staticmethod, classmethod)):
        what = f"a {type(function).__name__}; write @{type(function).__name__} above @jobq.worker"
    elif isinstance(function, Handler):
        what = f"the handler of {function.kind!r} already"
    elif isinstance(function, type):
        what = "a class; declare a function that makes what it needs"
    elif not callable(function):
        what = "no function"
    elif not inspect.ismethod(function):
        where = getattr(function, "__qualname__", "").rsplit("<locals>.")[-1]
        first = next(iter(getattr(getattr(function, "__code__", None), "co_varnames", ())), "")
        if "." in where and first in ("self", "cls"):
            what = "a method, and a job has no object to call it on; declare a function, or a staticmethod"
    if what is not None:
        raise InvalidError(f"kind {kind!r}: {'.'.join(_place(function))} is {what}")


def check_job(job: NewJob) -> None:
    """Raises InvalidError where enqueueing it would, as far as that can be told without the database."""
    from . import _native, _operations

    _operations.fill(_native.Job(), job)


def _place(function: Callable[..., Any]) -> "tuple[str, str]":
    """Where a function is from; the same again after a reload of its module, and in what ran as __main__."""
    while isinstance(function, functools.partial):
        function = function.func
    if not hasattr(function, "__qualname__"):
        function = type(function)  # an object that can be called
    module = getattr(function, "__module__", "") or ""
    if module == "__main__":
        spec = getattr(sys.modules.get("__main__"), "__spec__", None)
        module = spec.name if spec is not None else module
    return module, getattr(function, "__qualname__", repr(function))


def handlers() -> "Dict[str, Handler[Any, Any]]":
    """All handlers, by kind."""
    return dict(_handlers)
