"""For an application's tests.

:func:`perform` runs one function as a job, without a database. :func:`inline` makes every enqueue of a block run at once.
:func:`assert_enqueued`, :func:`count_enqueued` and :func:`drain` look at, and run, what is in a database: on the
application's own connection in its own transaction, too, so that a rollback leaves nothing behind.

The pytest plugin (:mod:`jobq.pytest_plugin`) has a database for them.

A function runs in the test's own process: what would cost its job one attempt in production, a crash or an endless loop,
takes the test with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import dataclasses
import datetime
import itertools
from typing import Any, Dict, Iterable, Iterator, List, NoReturn, Optional, Sequence, Tuple, TypeVar, Union

from . import _connections, _native, _operations, _running, client as _client, encoding
from ._native import lib
from .client import Client
from .context import Context, Job, enter, leave
from .errors import InvalidError, ResultError
from .handlers import Handler, get_client, handlers
from .model import Enqueued, NewJob, microseconds
from .outcome import Cancel, Discard, Retry, Snooze

T = TypeVar("T")

#: What names a kind of job.
Kind = Union[str, Handler[Any, Any]]


def _kind(kind: Kind) -> str:
    return kind.kind if isinstance(kind, Handler) else kind


def _handler(kind: Kind) -> Handler[Any, Any]:
    if isinstance(kind, Handler):
        return kind
    found = handlers().get(kind)
    if found is None:
        raise InvalidError(f"no @jobq.worker function has the kind {kind!r}; there are {', '.join(handlers()) or 'none'}")
    return found


# ---- one function, without a database ----


@dataclasses.dataclass(frozen=True)
class Performed:
    """How it ended. ``state``: "completed", "retryable", "discarded", "scheduled" (snoozed) or "cancelled". ``error``: what
    the function raised, or why its result was left out (:class:`jobq.ResultError`). ``delay``: of a snooze, or a retry with one of its own. ``progress``: each report."""

    state: str
    result: Any = None
    error: Optional[BaseException] = None
    delay: Optional[datetime.timedelta] = None
    progress: Sequence[Tuple[float, Optional[str]]] = ()


def perform(
    kind: Kind,
    args: Any = None,
    *,
    attempt: int = 1,
    max_attempts: Optional[int] = None,
    queue: Optional[str] = None,
    meta: Any = None,
    stop: int = 0,
    id: int = 1,
) -> Performed:
    """Runs the function once with these args, which go through JSON as they would in production. ``max_attempts``, ``queue``:
    None: those of the decorator, else 20 and "default". ``stop``: what ``should_stop()`` says to it."""
    handler = _handler(kind)
    if max_attempts is None:
        max_attempts = handler.defaults.max_attempts or 20
    job = Job(
        id=id,
        attempt=attempt,
        max_attempts=max_attempts,
        queue=handler.defaults.queue if queue is None else queue,
        kind=handler.kind,
        args=encoding.loads(encoding.dump_object({} if args is None else args, "args")),
        meta=encoding.loads(encoding.dump_object({} if meta is None else meta, "meta")),
        timeout=None,
    )
    said: List[Tuple[float, Optional[str]]] = []
    context = Context(job, lambda done, note: said.append((done, note)), lambda: stop)
    loop = _running.Loop()
    token = enter(context)
    try:
        result = _running.call(handler, context, job.args, loop)
        try:
            text = _running.text_of_result(result)
            _check_as_libjobq(id, text)
        except ResultError as fault:
            return Performed("completed", error=fault, progress=tuple(said))
        return Performed("completed", None if text is None else encoding.loads(text), progress=tuple(said))
    except Snooze as outcome:
        try:
            _running.snoozed_ms(outcome)
        except TypeError as error:  # the answer fails, and so does the attempt
            return Performed("retryable" if attempt < max_attempts else "discarded", error=error, progress=tuple(said))
        return Performed("scheduled", error=outcome, delay=datetime.timedelta(milliseconds=outcome.after_ms), progress=tuple(said))
    except Cancel as outcome:
        return Performed("cancelled", error=outcome, progress=tuple(said))
    except Discard as outcome:
        return Performed("discarded", error=outcome, progress=tuple(said))
    except (Exception, asyncio.CancelledError) as error:  # nobody cancels it here: it is the function's own
        if _running.is_hopeless(handler, error):
            return Performed("discarded", error=error, progress=tuple(said))
        delay_ms = error.after_ms if isinstance(error, Retry) else _running.delay_ms(handler, attempt)
        return Performed(
            "retryable" if attempt < max_attempts else "discarded",
            error=error,
            delay=None if delay_ms < 0 or attempt >= max_attempts else datetime.timedelta(milliseconds=delay_ms),
            progress=tuple(said),
        )
    finally:
        leave(context, token)
        loop.close()


#: As in libjobq: max_frame where jobqd's configuration has none, and how deep JSON may nest.
_MAX_FRAME, _MAX_LEVELS = 4 * 1024 * 1024, 128


def _check_as_libjobq(id: int, text: Optional[bytes]) -> None:
    """ResultError for a result that libjobq would refuse to send."""
    if text is None:
        return
    size = len(text) + len(f'{{"t":"ok","id":{id},"result":}}')
    if size > _MAX_FRAME:
        raise ResultError(f"the result cannot be kept: the answer takes {size} bytes, at most {_MAX_FRAME} are allowed")
    level = _nested([encoding.loads(text)])
    for _ in range(_MAX_LEVELS):
        if not level:
            return
        level = _nested(item for each in level for item in (each.values() if isinstance(each, dict) else each))
    if not level:
        return
    raise ResultError(f"the result cannot be kept: at most {_MAX_LEVELS} levels of nesting")


def _nested(values: Iterable[Any]) -> List[Union[Dict[str, Any], List[Any]]]:
    return [value for value in values if isinstance(value, (dict, list))]


# ---- inline ----

_numbers = itertools.count(1)


@contextlib.contextmanager
def inline() -> Iterator[List[NewJob]]:
    """Within the block every enqueue of this thread (or asyncio task), by any client, runs its function at once, instead of
    being stored; what the function raises is raised there. Gives the list of the jobs that ran."""
    ran: List[NewJob] = []

    def run(job: NewJob) -> Enqueued:
        _operations.fill(_native.Job(), job)
        ran.append(job)
        number = next(_numbers)
        done = perform(
            job.kind, job.args, queue=job.queue, max_attempts=job.max_attempts or 20, meta=job.meta,
            id=number
        )
        if done.error is not None and not isinstance(done.error, (Snooze, Cancel, Discard)):
            raise done.error
        return Enqueued(number)

    with _client.instead(run):
        yield ran


# ---- what is in a database ----


def _on(client: Optional[Client], connection: Any, operation: "_operations.Operation[T]") -> T:
    """Runs it on the application's connection, by its address, or on one of the client's own."""
    if connection is not None:
        return operation.on_conn(_connections.address_of(connection))
    return (client or get_client())._run(operation, None)


def _no_statement() -> NoReturn:
    raise AssertionError("these go by the address alone")


def _no_rows(rows: Any) -> NoReturn:
    _no_statement()


def _match(
    schema: Optional[bytes],
    kind: Optional[Kind],
    args: Any,
    meta: Any,
    queue: Optional[str],
    tags: Sequence[str],
    priority: Optional[int],
    state: Optional[str],
    scheduled_after: Optional[datetime.datetime],
    scheduled_before: Optional[datetime.datetime],
) -> _native.TestingMatch:
    tags_in_c = _operations.names(tags, "tags")
    return _native.TestingMatch(
        size=ctypes.sizeof(_native.TestingMatch),
        schema=schema,
        kind=None if kind is None else _operations.text(_kind(kind), "kind"),
        queue=None if queue is None else _operations.text(queue, "queue"),
        args=None if args is None else encoding.dump_object(args, "args").encode(),
        meta=None if meta is None else encoding.dump_object(meta, "meta").encode(),
        tags=_operations.string_array(tags_in_c),
        n_tags=len(tags_in_c),
        priority=-1 if priority is None else _operations.whole(priority, "priority", 0, 9),
        state=None if state is None else _operations.text(state, "state"),
        scheduled_after_us=0 if scheduled_after is None else microseconds(scheduled_after, "scheduled_after"),
        scheduled_before_us=0 if scheduled_before is None else microseconds(scheduled_before, "scheduled_before"),
    )


def _schema_of(client: Optional[Client], connection: Any) -> Optional[bytes]:
    if client is None and connection is not None:
        return None
    return (client or get_client()).schema.encode()


def _look(function: Any, conn: int, match: _native.TestingMatch) -> None:
    err = _native.Error()
    code = function(conn, ctypes.byref(match), ctypes.byref(err))
    if code in (-5, -6) and not err.sqlstate:
        raise AssertionError(err.message.decode("utf-8", "replace"))
    _operations.check(code, err)


def assert_enqueued(
    kind: Optional[Kind] = None,
    args: Any = None,
    *,
    meta: Any = None,
    queue: Optional[str] = None,
    tags: Sequence[str] = (),
    priority: Optional[int] = None,
    state: Optional[str] = None,
    scheduled_after: Optional[datetime.datetime] = None,
    scheduled_before: Optional[datetime.datetime] = None,
    client: Optional[Client] = None,
    connection: Any = None,
) -> None:
    """AssertionError when no job is like this; it says which come nearest. ``args`` and ``meta``: objects that the job's
    contain. ``state``: None: those in which a job waits to run. ``connection``: looks in the application's transaction;
    otherwise the client's own (:func:`jobq.get_client`)."""
    match = _match(
        _schema_of(client, connection), kind, args, meta, queue, tags, priority, state, scheduled_after, scheduled_before
    )
    operation: _operations.Operation[None] = _operations.Operation(
        lambda conn: _look(lib.jobq_testing_assert_enqueued, conn, match), _no_statement, _no_rows
    )
    _on(client, connection, operation)


def refute_enqueued(
    kind: Optional[Kind] = None,
    args: Any = None,
    *,
    meta: Any = None,
    queue: Optional[str] = None,
    tags: Sequence[str] = (),
    priority: Optional[int] = None,
    state: Optional[str] = None,
    scheduled_after: Optional[datetime.datetime] = None,
    scheduled_before: Optional[datetime.datetime] = None,
    client: Optional[Client] = None,
    connection: Any = None,
) -> None:
    """AssertionError when a job is like this, as :func:`assert_enqueued` has it; it names the job."""
    match = _match(
        _schema_of(client, connection), kind, args, meta, queue, tags, priority, state, scheduled_after, scheduled_before
    )
    operation: _operations.Operation[None] = _operations.Operation(
        lambda conn: _look(lib.jobq_testing_refute_enqueued, conn, match), _no_statement, _no_rows
    )
    _on(client, connection, operation)


def _count(conn: int, match: _native.TestingMatch) -> int:
    n, err = ctypes.c_int64(), _native.Error()
    _operations.check(lib.jobq_testing_count(conn, ctypes.byref(match), ctypes.byref(n), ctypes.byref(err)), err)
    return n.value


def count_enqueued(
    kind: Optional[Kind] = None,
    args: Any = None,
    *,
    meta: Any = None,
    queue: Optional[str] = None,
    tags: Sequence[str] = (),
    priority: Optional[int] = None,
    state: Optional[str] = None,
    scheduled_after: Optional[datetime.datetime] = None,
    scheduled_before: Optional[datetime.datetime] = None,
    client: Optional[Client] = None,
    connection: Any = None,
) -> int:
    """How many jobs are like this, as :func:`assert_enqueued` has it."""
    match = _match(
        _schema_of(client, connection), kind, args, meta, queue, tags, priority, state, scheduled_after, scheduled_before
    )
    operation: _operations.Operation[int] = _operations.Operation(
        lambda conn: _count(conn, match), _no_statement, _no_rows
    )
    return _on(client, connection, operation)


@dataclasses.dataclass(frozen=True)
class Drained:
    """What became of the jobs, one count each."""

    completed: int
    retryable: int  #: failed, and will be tried again
    discarded: int  #: failed for the last time, or by the function's word
    snoozed: int
    cancelled: int
    refused: int  #: ended by somebody else before the function answered

    @property
    def total(self) -> int:
        """All of them."""
        return sum(dataclasses.astuple(self))


def _drain(conn: int, options: _native.TestingDrainOptions) -> Drained:
    out, err = _native.TestingDrained(), _native.Error()
    _operations.check(lib.jobq_testing_drain(conn, ctypes.byref(options), ctypes.byref(out), ctypes.byref(err)), err)
    return Drained(*(getattr(out, name) for name, *_ in out._fields_))


def drain(
    queue: str = "default",
    *,
    with_scheduled: bool = False,
    recursive: bool = True,
    limit: int = 0,
    client: Optional[Client] = None,
    connection: Any = None,
) -> Drained:
    """Runs the queue's jobs, one by one, as jobqd would take them, and settles each by jobqd's rules. Each is tried once; one
    that failed waits for the next drain. ``with_scheduled``: jobs that wait for their time, too. ``recursive``: jobs that
    functions enqueue, too. ``limit``: at most so many; 0: StateError after 1000.

    ``connection``: in the application's transaction. Functions may use it, too."""
    loop = _running.Loop()

    def no_exit(request: SystemExit) -> BaseException:
        fault = RuntimeError(f"sys.exit({request.code!r}) would have ended the worker")
        return fault.with_traceback(request.__traceback__)

    rows = _running.kinds(handlers(), loop, no_exit)
    options = _native.TestingDrainOptions(
        size=ctypes.sizeof(_native.TestingDrainOptions),
        schema=_schema_of(client, connection),
        queue=_operations.text(queue, "queue"),
        kinds=rows,
        n_kinds=len(rows),
        with_scheduled=bool(with_scheduled),
        recursive=bool(recursive),
        limit=_operations.whole(limit, "limit", 0, 2**31),
    )
    try:
        operation: _operations.Operation[Drained] = _operations.Operation(
            lambda conn: _drain(conn, options), _no_statement, _no_rows
        )
        return _on(client, connection, operation)
    finally:
        loop.close()


__all__ = [
    "Drained",
    "Performed",
    "assert_enqueued",
    "count_enqueued",
    "drain",
    "inline",
    "perform",
    "refute_enqueued",
]
