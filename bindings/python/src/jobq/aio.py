"""jobq for asyncio: :class:`Client` has the methods of :class:`jobq.Client`, to be awaited.

Calls on connections of its own run in threads, as many at a time as it has connections; the event loop goes on. On the
application's connection (``connection=``: psycopg's ``AsyncConnection``; SQLAlchemy's ``AsyncSession`` or
``AsyncConnection``, with asyncpg, too) they are statements of that connection, in its transaction, and need no thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import datetime
import os
import weakref
from types import TracebackType
from typing import Any, Awaitable, Callable, Iterable, List, Optional, Sequence, Type, TypeVar, Union

from . import _connections, _operations
from . import client as _sync
from ._operations import Operation
from ._pool import Database
from .client import JobLike, new_job
from .context import current
from .errors import InvalidError, StateError, TimedOutError
from .model import Enqueued, JobId, JobInfo, NewJob, OnConflict, Replace, Seconds, Unique, milliseconds

T = TypeVar("T")

_KINDS = "a psycopg AsyncConnection, or a SQLAlchemy AsyncSession or AsyncConnection"


async def _on_psycopg(connection: Any, operation: Operation[T]) -> T:
    from psycopg.rows import tuple_row

    sql, params = operation.statement()
    async with connection.cursor(row_factory=tuple_row) as cursor:
        guarded = operation.undo_on_error and _connections.in_transaction_psycopg(connection)
        try:
            if guarded:
                await cursor.execute(_connections.SAVEPOINT)
            try:
                await cursor.execute(sql, params)
                rows = await cursor.fetchall()
            except BaseException:  # of a cancelled task, too
                if guarded:
                    with contextlib.suppress(Exception):
                        await cursor.execute(_connections.ROLLBACK_TO)
                        await cursor.execute(_connections.RELEASE)
                raise
            if guarded:
                await cursor.execute(_connections.RELEASE)
        except Exception as error:
            _connections.translate(error)
    return operation.read(rows)


async def _run_on(connection: Any, operation: Operation[T]) -> T:
    """Runs it in the application's transaction."""
    whose = _connections.kind_of(connection)
    if whose == "psycopg async":
        return await _on_psycopg(connection, operation)
    if whose == "sqlalchemy async":
        run_sync: Callable[[Callable[[Any], T]], Awaitable[T]] = connection.run_sync
        return await run_sync(lambda inner: _connections.run_on(inner, operation))
    raise InvalidError(f"connection must be {_KINDS}; got {_connections.what_it_is(connection)}")


async def complete(connection: Any, result: Any = None, *, schema: Optional[str] = None) -> None:
    """:meth:`jobq.Context.complete` for the job that runs, on an asynchronous connection."""
    await _run_on(connection, current().completion(result, schema))


_clients: "weakref.WeakSet[Client]" = weakref.WeakSet()


def _in_child() -> None:
    for client in list(_clients):
        client._start_threads()


os.register_at_fork(after_in_child=_in_child)


class Client:
    """As :class:`jobq.Client`, whose arguments it takes; its methods say more.

    A call that is cancelled goes on in its thread to its end: whether it took place is unknown, as after a lost
    connection. Usable from one event loop at a time.
    """

    def __init__(self, dsn: Database = None, *, schema: Optional[str] = None, max_connections: int = 8) -> None:
        self._sync = _sync.Client(dsn, schema=schema, max_connections=max_connections)
        self._schema = schema
        self._closed = False
        self._max_connections = max_connections
        self._start_threads()
        _clients.add(self)

    def _start_threads(self) -> None:
        """Also in a child of fork(), which has none of its parent's: what was handed to them would wait for ever."""
        self._threads = concurrent.futures.ThreadPoolExecutor(self._max_connections, "jobq")

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the client's connections, when the calls under way have ended."""
        self._closed = True
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._threads.shutdown)
        self._sync.close()

    @property
    def schema(self) -> str:
        """The schema that the client's calls are about."""
        return self._sync.schema

    async def _call(self, function: Callable[[], T]) -> T:
        if self._closed:
            raise StateError("the client is closed")
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def _run(self, operation: Operation[T], connection: Any) -> T:
        if connection is not None:
            return await _run_on(connection, operation)
        return await self._call(lambda: self._sync._run(operation, None))

    async def enqueue(
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
        """See :meth:`jobq.Client.enqueue`."""
        job = NewJob(
            kind, args, queue, priority, max_attempts, timeout, schedule_in, schedule_at, expires_in, expires_at, key,
            unique_key, unique, on_conflict, replace, tags, meta,
        )  # fmt: skip
        return await self.enqueue_job(job, connection=connection)

    async def enqueue_job(self, job: JobLike, *, connection: Any = None) -> Enqueued:
        """See :meth:`jobq.Client.enqueue_job`."""
        take = _sync.taken_instead()
        if take is not None:
            return take(new_job(job))
        return await self._run(_operations.enqueue(self._schema, new_job(job), connection is not None), connection)

    async def enqueue_many(self, jobs: Iterable[JobLike], *, connection: Any = None) -> List[Enqueued]:
        """See :meth:`jobq.Client.enqueue_many`."""
        all_jobs = _sync.new_jobs(jobs)
        take = _sync.taken_instead()
        if take is not None:
            return [take(job) for job in all_jobs]
        if isinstance(jobs, Sequence) and not jobs:
            return []
        return await self._run(_operations.enqueue_many(self._schema, all_jobs, connection is not None), connection)

    async def get(self, job: JobId, *, connection: Any = None) -> JobInfo:
        """See :meth:`jobq.Client.get`."""
        return await self._run(_operations.get(self._schema, job), connection)

    async def wait(self, job: JobId, timeout: Optional[Seconds] = None) -> JobInfo:
        """See :meth:`jobq.Client.wait`. It looks from the event loop, in threads for the looks alone: any number of tasks may
        wait, and a cancelled one ends at once."""
        return await _wait(self, job, timeout)

    async def cancel(self, job: JobId, *, connection: Any = None) -> bool:
        """See :meth:`jobq.Client.cancel`."""
        return await self._run(_operations.on_one("cancel", self._schema, job), connection)

    async def retry(self, job: JobId, *, connection: Any = None) -> bool:
        """See :meth:`jobq.Client.retry`."""
        return await self._run(_operations.on_one("retry", self._schema, job), connection)

    async def delete(self, job: JobId, *, connection: Any = None) -> bool:
        """See :meth:`jobq.Client.delete`."""
        return await self._run(_operations.on_one("delete", self._schema, job), connection)

    async def cancel_many(self, *, connection: Any = None, **conditions: Any) -> int:
        """See :meth:`jobq.Client.cancel_many`."""
        return await self._run(_operations.on_many("cancel_many", self._schema, conditions), connection)

    async def retry_many(self, *, connection: Any = None, **conditions: Any) -> int:
        """See :meth:`jobq.Client.retry_many`."""
        return await self._run(_operations.on_many("retry_many", self._schema, conditions), connection)

    async def delete_many(self, *, connection: Any = None, **conditions: Any) -> int:
        """See :meth:`jobq.Client.delete_many`."""
        return await self._run(_operations.on_many("delete_many", self._schema, conditions), connection)

    async def purge(
        self, args: Any, *, kind: Optional[str] = None, queue: Optional[str] = None, connection: Any = None
    ) -> int:
        """See :meth:`jobq.Client.purge`."""
        return await self._run(_operations.purge(self._schema, args, kind, queue), connection)

    async def pause(self, queue: str, *, node: Optional[str] = None, connection: Any = None) -> bool:
        """See :meth:`jobq.Client.pause`."""
        return await self._run(_operations.on_queue("pause", self._schema, queue, node), connection)

    async def resume(self, queue: str, *, node: Optional[str] = None, connection: Any = None) -> bool:
        """See :meth:`jobq.Client.resume`."""
        return await self._run(_operations.on_queue("resume", self._schema, queue, node), connection)

    async def scale(self, queue: str, n: Optional[int], *, node: Optional[str] = None, connection: Any = None) -> bool:
        """See :meth:`jobq.Client.scale`."""
        operation = _operations.scale(self._schema, queue, n, node)
        return await self._run(operation, connection)


#: Between looks: from a millisecond, half as long again each time, to a tenth of a second, as jobq_job_wait does.
_FIRST_S, _FACTOR, _MOST_S = 0.001, 1.5, 0.1


async def _wait(client: Client, job: JobId, timeout: Optional[Seconds]) -> JobInfo:
    operation = _operations.get(client._schema, job)
    limit = None if timeout is None else milliseconds(timeout, "timeout", 0) / 1000
    loop = asyncio.get_running_loop()
    end = None if limit is None else loop.time() + limit
    pause = _FIRST_S
    while True:
        info = await client._run(operation, None)
        if info.finished:
            return info
        left = None if end is None else end - loop.time()
        if left is not None and left <= 0:
            raise TimedOutError(f"job {info.id} is {info.state} after {limit:g} s")
        await asyncio.sleep(pause if left is None else min(pause, left))
        pause = min(pause * _FACTOR, _MOST_S)
