"""The client: enqueues jobs, looks at them, waits for them, steers them."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import datetime
import itertools
import os
import sys
import warnings
from types import TracebackType
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Type, TypeVar, Union

from . import _connections, _operations
from ._operations import Operation
from ._pool import Database, Pool
from ._waiting import wait_for
from .errors import InvalidError
from .model import Enqueued, JobId, JobInfo, NewJob, OnConflict, Replace, Seconds, Unique, id_of, milliseconds

T = TypeVar("T")

#: What takes jobs instead of the database; see jobq.testing.inline.
_instead: "contextvars.ContextVar[Optional[Callable[[NewJob], Enqueued]]]" = contextvars.ContextVar(
    "jobq_instead", default=None
)


@contextlib.contextmanager
def instead(take: Callable[[NewJob], Enqueued]) -> Iterator[None]:
    """Within the block `take` has every new job. For jobq.testing."""
    token = _instead.set(take)
    try:
        yield
    finally:
        _instead.reset(token)


def taken_instead() -> Optional[Callable[[NewJob], Enqueued]]:
    """What takes jobs here; None: the database does."""
    return _instead.get()


# ---- what decorators say of kinds ----

#: By kind.
_declared: Dict[str, NewJob] = {}

#: What the decorator may say.
_DECLARED = ("queue", "priority", "max_attempts", "timeout", "unique", "tags")


class IgnoredOptionsWarning(UserWarning):
    """A job of a kind that this program has a function for was enqueued by the kind's name, and the options of its decorator
    do not hold for it."""


def set_declared(defaults: NewJob) -> None:
    """The options of a decorated function's jobs. For jobq.handlers."""
    _declared[defaults.kind] = defaults


def of_handler(job: NewJob) -> NewJob:
    """Marks a job that has a decorator's options. For jobq.handlers."""
    job.__dict__["_of_handler"] = True
    return job


def warn_of_ignored(job: NewJob) -> None:
    """Where a job has the plain defaults for what its kind's decorator says otherwise."""
    declared = _declared.get(job.kind) if isinstance(job.kind, str) else None
    if declared is None or "_of_handler" in job.__dict__:
        return
    plain = NewJob(job.kind)
    ignored = [
        f"{name}={getattr(declared, name)!r}"
        for name in _DECLARED
        if getattr(declared, name) != getattr(plain, name) == getattr(job, name)
    ]
    if ignored:
        warnings.warn(
            f"a job of the kind {job.kind!r} is enqueued by name, without its decorator's {', '.join(ignored)}: call the "
            f"function's .enqueue() or .job(), or give the options",
            IgnoredOptionsWarning,
            stacklevel=outside(),
        )


def outside() -> int:
    """The stack level of the application's own line, for warnings. For jobq itself."""
    here, level, frame = os.path.dirname(os.path.abspath(__file__)), 1, sys._getframe(1)
    while frame.f_back is not None and os.path.dirname(os.path.abspath(frame.f_code.co_filename)) == here:
        frame, level = frame.f_back, level + 1
    return level


#: What enqueue_many takes for one job.
JobLike = Union[NewJob, Mapping[str, Any]]


def new_job(job: JobLike, nth: Optional[int] = None) -> NewJob:
    """A job, also where its members were given in a mapping. `nth`: where it is in a call of many."""
    if isinstance(job, NewJob):
        if _declared:
            warn_of_ignored(job)
        return job
    what = "a job" if nth is None else f"jobs[{nth}]"
    if not isinstance(job, Mapping):
        raise InvalidError(f"{what} must be a jobq.NewJob or a mapping of its members, got {job!r:.100}")
    known = {field.name for field in dataclasses.fields(NewJob)}
    unknown = [name for name in job if name not in known]
    if unknown:
        raise InvalidError(f"{what} has no member {unknown[0]!r}; allowed are {', '.join(sorted(known))}")
    if "kind" not in job:
        raise InvalidError("kind must be given" if nth is None else f"{what}.kind must be given")
    return new_job(NewJob(**job))


def new_jobs(jobs: Iterable[JobLike]) -> Iterator[NewJob]:
    """The same of many, one by one: a generator of very many need not fit into memory twice."""
    if isinstance(jobs, (Mapping, NewJob, str, bytes)):
        raise InvalidError(f"jobs must be an iterable of jobs, got a {type(jobs).__name__}")
    try:
        return map(new_job, jobs, itertools.count())
    except TypeError:
        raise InvalidError(f"jobs must be an iterable of jobs, got {jobs!r:.100}") from None


class Client:
    """Jobs in one database. Any number of threads may share a client; it has up to ``max_connections`` connections of its
    own, opened when they are first wanted, and again after they were lost. After a fork the child opens its own.

    ``dsn``: a libpq connection string or URI, or a function that returns one, asked before each call; None: libpq's ``PG*``
    environment. ``schema``: where ``jobqd migrate up`` put
    it; None: "jobq".

    Most methods take a ``connection`` of the application: a psycopg or psycopg2 connection, a SQLAlchemy session or
    connection, a Django connection. Then they take part in its transaction: a job that was enqueued in it runs if it
    commits, and never was if it rolls back. Without one each call is a transaction of its own.

    Every method may raise :class:`InvalidError` (an argument; the message names it), :class:`ConnectionLostError`,
    :class:`SchemaError`, :class:`DatabaseError` and, of a caller's connection, :class:`StateError`.
    """

    def __init__(self, dsn: Database = None, *, schema: Optional[str] = None, max_connections: int = 8) -> None:
        self._schema = schema
        most = _operations.whole(max_connections, "max_connections", 1, 10000)
        self._pool = Pool(dsn, schema, most)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the client's connections; one that is in use when its call has returned. Harmless when it was closed."""
        self._pool.close()

    @property
    def schema(self) -> str:
        """The schema that the client's calls are about."""
        return self._schema or "jobq"

    def _run(self, operation: Operation[T], connection: Any) -> T:
        if connection is not None:
            return _connections.run_on(connection, operation)
        with self._pool.connection() as handle:
            return operation.on_client(handle)

    def _enqueue(self, operation: Operation[T], connection: Any) -> T:
        """The same for new jobs. jobq.django looks at the transaction around it."""
        return self._run(operation, connection)

    # ---- enqueue ----

    def enqueue(
        self,
        kind: str,
        args: Any = None,
        *,
        queue: str = "default",
        priority: int = 0,
        max_attempts: Optional[int] = None,
        timeout: Optional[Seconds] = None,
        schedule_in: Optional[Seconds] = None,
        schedule_at: Optional[datetime.datetime] = None,
        expires_in: Optional[Seconds] = None,
        expires_at: Optional[datetime.datetime] = None,
        key: Optional[str] = None,
        unique_key: Optional[str] = None,
        unique: Union[Unique, bool, None] = None,
        on_conflict: Union[OnConflict, str] = OnConflict.IGNORE,
        replace: Optional[Replace] = None,
        tags: Sequence[str] = (),
        meta: Any = None,
        connection: Any = None,
    ) -> Enqueued:
        """Enqueues one job; :class:`NewJob` says what each argument means. Where a job is there already, by ``unique_key`` or
        ``unique``, ``on_conflict`` says what happens, and the answer's ``id`` is that job's.

        Raises also :class:`ConflictError` with ``on_conflict="raise"``.
        """
        job = NewJob(
            kind, args, queue, priority, max_attempts, timeout, schedule_in, schedule_at, expires_in, expires_at, key,
            unique_key, unique, on_conflict, replace, tags, meta,
        )  # fmt: skip
        return self.enqueue_job(job, connection=connection)

    def enqueue_job(self, job: JobLike, *, connection: Any = None) -> Enqueued:
        """As :meth:`enqueue`, of a job that is an object already."""
        one, take = new_job(job), taken_instead()
        if take is not None:
            return take(one)
        return self._enqueue(_operations.enqueue(self._schema, one, connection is not None), connection)

    def enqueue_many(self, jobs: Iterable[JobLike], *, connection: Any = None) -> List[Enqueued]:
        """Enqueues jobs, all or none, in few round trips. The line is in their order, and so are the answers.

        Raises as :meth:`enqueue`; the message names the job, ``jobs[3].priority``.
        """
        all_jobs, take = new_jobs(jobs), taken_instead()
        if take is not None:
            return [take(job) for job in all_jobs]
        if isinstance(jobs, Sequence) and not jobs:
            return []
        return self._enqueue(_operations.enqueue_many(self._schema, all_jobs, connection is not None), connection)

    # ---- one job ----

    def get(self, job: JobId, *, connection: Any = None) -> JobInfo:
        """Looks a job up, live or finished. Raises also :class:`NotFoundError`."""
        return self._run(_operations.get(self._schema, job), connection)

    def wait(self, job: JobId, timeout: Optional[Seconds] = None) -> JobInfo:
        """Waits until the job has ended (completed, cancelled or discarded), and looks it up: its ``result`` is there.
        Other threads go on meanwhile. ``timeout``: how long at most; None: for ever.

        Raises also :class:`TimedOutError`, and :class:`NotFoundError`: no job has that id, or it has left no trace.
        """
        number = id_of(job)
        timeout_ms = -1 if timeout is None else milliseconds(timeout, "timeout", 0)
        with self._pool.connection(counts=False) as handle:
            return wait_for(handle, number, timeout_ms)

    def cancel(self, job: JobId, *, connection: Any = None) -> bool:
        """Cancels a job. One that waits ends at once (True); one that runs is told to stop, and killed if it does not
        (False, as for one that had ended before). Raises also :class:`NotFoundError`."""
        return self._run(_operations.on_one("cancel", self._schema, job), connection)

    def retry(self, job: JobId, *, connection: Any = None) -> bool:
        """Makes an ended or waiting job available again, with at least one attempt left. False when it is available or
        runs. Raises also :class:`NotFoundError`."""
        return self._run(_operations.on_one("retry", self._schema, job), connection)

    def delete(self, job: JobId, *, connection: Any = None) -> bool:
        """Deletes a job, live or ended. False when it runs: then it is told to stop, and leaves no trace when it has ended.
        Raises also :class:`NotFoundError`."""
        return self._run(_operations.on_one("delete", self._schema, job), connection)

    # ---- many jobs ----

    def cancel_many(self, *, connection: Any = None, **conditions: Any) -> int:
        """Cancels the live jobs that meet all conditions, and says how many: ``ids``, ``state``, ``queue``, ``kind``,
        ``tags``, ``key``, ``args``, ``meta``, ``priority``, ``limit``; ``inserted_before``, ``inserted_after`` and the same
        with ``scheduled`` and ``finished``, which are datetimes with a time zone. ``state``, ``queue``, ``kind`` and
        ``priority`` may be lists; ``args`` and ``meta`` are objects that the job's contain. ``all=True`` where there is no
        other condition."""
        return self._run(_operations.on_many("cancel_many", self._schema, conditions), connection)

    def retry_many(self, *, connection: Any = None, **conditions: Any) -> int:
        """Makes the jobs available that have ended or wait for their time; the conditions are :meth:`cancel_many`'s."""
        return self._run(_operations.on_many("retry_many", self._schema, conditions), connection)

    def delete_many(self, *, connection: Any = None, **conditions: Any) -> int:
        """Deletes jobs, live and ended; the conditions are :meth:`cancel_many`'s."""
        return self._run(_operations.on_many("delete_many", self._schema, conditions), connection)

    def purge(
        self, args: Any, *, kind: Optional[str] = None, queue: Optional[str] = None, connection: Any = None
    ) -> int:
        """Deletes a user's data: every job, live or ended, whose args contain the object ``args``."""
        return self._run(_operations.purge(self._schema, args, kind, queue), connection)

    # ---- queues ----

    def pause(self, queue: str, *, node: Optional[str] = None, connection: Any = None) -> bool:
        """No node claims jobs of the queue any more, or that node alone; those that run go on. False: it was so before."""
        return self._run(_operations.on_queue("pause", self._schema, queue, node), connection)

    def resume(self, queue: str, *, node: Optional[str] = None, connection: Any = None) -> bool:
        """Lifts the pauses of the queue, or that node's own alone."""
        return self._run(_operations.on_queue("resume", self._schema, queue, node), connection)

    def scale(self, queue: str, n: Optional[int], *, node: Optional[str] = None, connection: Any = None) -> bool:
        """``n`` workers, 0 to 1000, on each node that serves the queue, or on that node; None: as its configuration says."""
        return self._run(_operations.scale(self._schema, queue, n, node), connection)
