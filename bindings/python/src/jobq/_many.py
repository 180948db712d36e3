"""Many jobs at a time in one worker process: coroutines on an event loop, plain functions in threads beside it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import ctypes
import functools
import inspect
import sys
import threading
from ctypes import byref
from typing import Any, Callable, Dict, Optional, TypeVar

from . import _native
from ._native import lib
from ._operations import check
from ._running import Answers, Table, answer, context_of, one_line
from .context import Context, Stop, enter, leave
from .errors import InvalidError, JobqError, of_code
from .handlers import Handler
from .outcome import Cancel, Snooze

MOST = 1000

T = TypeVar("T")


def of_table(table: Table, wanted: Optional[int]) -> int:
    """How many jobs the process runs at a time: what the command line says, or the most that a function asks for."""
    if wanted is not None:
        if not 1 <= wanted <= MOST:
            raise InvalidError(f"--concurrency must be 1 to {MOST}, got {wanted}")
        return wanted
    return max((handler.concurrency or 1 for handler in table.values()), default=1)


def _outside_of_futures(function: Callable[[], T]) -> T:
    """A future cannot hold StopIteration, nor a coroutine raise it."""
    try:
        return function()
    except StopIteration as error:
        raise RuntimeError("the function raised StopIteration") from error


class Worker:
    """libjobq's worker on an event loop. All of it but :meth:`_context`'s functions runs in the loop's thread."""

    def __init__(self, table: Table, concurrency: int, on_fork: Any, on_exit: Any) -> None:
        self._table = table
        self._concurrency = concurrency
        self._on_exit = on_exit
        self._lock = threading.RLock()  # libjobq's worker is for one thread at a time
        self._tasks: Dict[int, "asyncio.Task[None]"] = {}  # by libjobq's jobq_work
        self._in_threads: Dict[int, Handler[Any, Any]] = {}  # those of them that cannot be cancelled from outside
        self._limits: Dict[str, asyncio.Semaphore] = {}
        self._threads: Optional[concurrent.futures.ThreadPoolExecutor] = None
        self._worker = ctypes.c_void_p()
        self._failure: Optional[BaseException] = None
        rows = (_native.WorkerKind * len(table))()
        for row, handler in zip(rows, table.values()):
            row.kind = handler.kind.encode()
            row.handler = _native.HANDLER(self._begin_of(handler))
        self._options = _native.WorkerOptions(
            size=ctypes.sizeof(_native.WorkerOptions),
            kinds=rows,
            n_kinds=len(rows),
            fd=-1,
            on_fork=_native.HOOK(on_fork),
            concurrency=concurrency,
            on_stop=_native.STOP_HOOK(self._stop),
        )

    def run(self) -> None:
        """The worker's life. Raises what ends it before its time."""
        err = _native.Error()
        check(lib.jobq_worker_open(byref(self._worker), byref(self._options), byref(err)), err)
        if not self._worker:
            return  # a template that was told to go
        try:
            asyncio.run(self._main())
        finally:
            if not self._tasks:  # else the loop itself has failed, and they refer to it
                lib.jobq_worker_close(self._worker)

    async def _main(self) -> None:
        loop = asyncio.get_running_loop()
        for handler in self._table.values():
            limit = handler.concurrency or (self._concurrency if handler.is_coroutine else 1)
            if limit < self._concurrency:
                self._limits[handler.kind] = asyncio.Semaphore(limit)
        self._over = asyncio.Event()
        self._threads = concurrent.futures.ThreadPoolExecutor(self._concurrency, "jobq")
        fd = lib.jobq_worker_fd(self._worker)
        loop.add_reader(fd, self._step)
        try:
            self._step()
            await self._over.wait()
        finally:
            loop.remove_reader(fd)
        if self._failure is not None:
            raise self._failure
        self._threads.shutdown(wait=False)

    def _step(self) -> None:
        err = _native.Error()
        with self._lock:
            code = lib.jobq_worker_step(self._worker, byref(err))
        if code == 1:
            return
        if code < 0:
            self._failure = of_code(code, err.message.decode("utf-8", "replace"))
        self._over.set()

    # ---- what libjobq calls, in the loop's thread, from within _step ----

    def _begin_of(self, handler: Handler[Any, Any]) -> Any:
        def begin(work: int, data: Optional[int]) -> int:
            try:
                kept, err = ctypes.c_void_p(), _native.Error()
                check(lib.jobq_work_keep(work, byref(kept), byref(err)), err)
                assert kept.value is not None
                self._tasks[kept.value] = asyncio.get_running_loop().create_task(self._job(handler, kept.value))
                return 0
            except BaseException as error:  # nothing may reach C
                print(f"jobq: cannot begin job {lib.jobq_work_id(work)}: {one_line(error)}", file=sys.stderr)
                return 1

        return begin

    def _stop(self, work: int, data: Optional[int]) -> None:
        task = self._tasks.get(work)
        if task is not None and work not in self._in_threads:
            task.cancel()

    # ---- one job ----

    async def _job(self, handler: Handler[Any, Any], work: int) -> None:
        answers = Answers(work)
        attempt = 1
        try:
            try:
                attempt = lib.jobq_work_attempt(work)
                result = await self._call(handler, work)
                self._say(answers.ok, result)
            except asyncio.CancelledError as error:
                self._say(self._was_stopped, answers, handler, work, attempt, error)
            except SystemExit as request:
                self._say(answer, answers, handler, attempt, self._on_exit(request))
            except BaseException as error:  # whatever the function raises is its own affair
                if answers.given:
                    raise
                self._say(answer, answers, handler, attempt, error)
        except JobqError as error:
            if self._failure is None:
                print(f"jobq: cannot answer a job of {handler.kind}: {one_line(error)}", file=sys.stderr)
        finally:
            self._tasks.pop(work, None)

    def _say(self, function: Callable[..., T], *args: Any) -> T:
        with self._lock:
            return function(*args)

    def _was_stopped(
        self, answers: Answers, handler: Handler[Any, Any], work: int, attempt: int, error: BaseException
    ) -> None:
        """The coroutine has ended with CancelledError: as we asked, or by its own doing."""
        stop = Stop(lib.jobq_work_should_stop(work))
        if stop is Stop.CANCEL:
            answers.outcome(Cancel("stopped as asked"))
        elif stop is Stop.NOW:
            answers.outcome(Snooze(0))
        else:
            answer(answers, handler, attempt, error)

    async def _call(self, handler: Handler[Any, Any], work: int) -> Any:
        limit = self._limits.get(handler.kind)
        if limit is None:
            return await self._run(handler, work)
        async with limit:
            return await self._run(handler, work)

    async def _run(self, handler: Handler[Any, Any], work: int) -> Any:
        inner = self._say(context_of, work)
        context = Context(  # whose functions may be called from any thread
            inner.job,
            lambda done, note: self._say(inner.progress, done, note),
            lambda: self._say(inner.should_stop),
        )
        token = enter(context)
        try:
            kwargs = handler.parameters.convert(context.job.args)
            first = (context,) if handler.parameters.takes_context else ()
            if handler.is_coroutine:
                return await handler.function(*first, **kwargs)
            return await self._run_in_thread(handler, work, functools.partial(handler.function, *first, **kwargs))
        finally:
            self._say(inner.end)
            leave(context, token)

    async def _run_in_thread(self, handler: Handler[Any, Any], work: int, function: Callable[[], Any]) -> Any:
        self._in_threads[work] = handler
        try:
            run = functools.partial(contextvars.copy_context().run, _outside_of_futures, function)
            result = await asyncio.get_running_loop().run_in_executor(self._threads, run)
        finally:
            del self._in_threads[work]
        return await result if inspect.iscoroutine(result) else result
