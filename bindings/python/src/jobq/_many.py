"""Many jobs at a time in one worker process: coroutines on an event loop, plain functions in threads beside it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import ctypes
import functools
import inspect
import os
import signal
import sys
import threading
import time
from ctypes import byref
from typing import Any, Callable, Coroutine, Dict, Optional, TypeVar

from . import _native, _soft, hooks
from ._forks import Guard, leave_child
from ._native import lib
from ._operations import check
from ._running import Answers, Ending, Table, context_of, insist, names, of_error, of_result, one_line, prepared
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


class _Raised:
    """An exception of a function in a thread. A future would not hold each of them: StopIteration, GeneratorExit."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _outside_of_futures(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except BaseException as error:
        return _Raised(error)


class _NoRoom(Exception):
    """The function's limit has had none in time for a job."""


# The timeout runs while a job waits for its function's turn: that may take this part of it, then the job is given back.
_PART_FOR_WAITING = 0.1


async def _room_in(limit: asyncio.Semaphore, context: Context) -> None:
    timeout = context.job.timeout
    turn = asyncio.ensure_future(limit.acquire())
    try:
        await asyncio.wait({turn}, timeout=None if timeout is None else timeout.total_seconds() * _PART_FOR_WAITING)
        if not turn.done():
            raise _NoRoom
    except BaseException:
        turn.add_done_callback(lambda turn: None if turn.cancelled() else limit.release())  # it may have come meanwhile
        turn.cancel()
        raise


class Worker:
    """libjobq's worker on an event loop. All of it but a context's functions runs in the loop's thread."""

    def __init__(self, table: Table, concurrency: int, on_fork: Any, on_exit: Any) -> None:
        self._table = table
        self._concurrency = concurrency
        self._on_exit = on_exit
        self._lock = threading.RLock()  # libjobq's worker is for one thread at a time
        self._tasks: Dict[int, "asyncio.Task[None]"] = {}  # by libjobq's jobq_work
        self._in_threads: Dict[int, Handler[Any, Any]] = {}  # those of them that cannot be cancelled from outside
        self._of_threads: "Dict[int, asyncio.Task[Any]]" = {}  # coroutines that a thread waits for
        self._limits: Dict[str, asyncio.Semaphore] = {}
        self._threads: Optional[concurrent.futures.ThreadPoolExecutor] = None
        self._worker = ctypes.c_void_p()
        self._failure: Optional[BaseException] = None
        self._interrupted = False
        rows = names(table)
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
            return  # a forkserver that was told to go
        self._pid = os.getpid()
        try:
            asyncio.run(self._main())
        except (KeyboardInterrupt, SystemExit) as request:  # of a signal handler, or of a function without a job
            if os.getpid() != self._pid:
                leave_child(request)
            self._give_all_back()
            self._on_exit(request if isinstance(request, SystemExit) else SystemExit(130))
        finally:
            if not self._tasks:  # else the loop itself has failed, and they refer to it
                lib.jobq_worker_close(self._worker)

    def _give_all_back(self) -> None:
        """Uncounted, after the loop's end, which has cancelled what ran on it. What a thread still runs comes back after a
        second, when this process is gone."""
        for work in list(self._tasks):
            try:
                Answers(work, self._lock).outcome(Snooze(1 if work in self._in_threads else 0))
            except JobqError:
                pass

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
        self._hear_interrupts(loop)
        try:
            self._step()
            await self._over.wait()
        except BaseException:
            self._interrupted = True
            raise
        finally:
            loop.remove_reader(fd)
        if self._failure is not None:
            raise self._failure
        self._threads.shutdown(wait=False)

    def _hear_interrupts(self, loop: asyncio.AbstractEventLoop) -> None:
        """SIGINT is SIGTERM to this worker, unless the application has a handler of its own: coroutines are cancelled and their
        jobs given back, threads end what they do. KeyboardInterrupt would end the loop under all of them."""
        there: Any = signal.getsignal(signal.SIGINT)
        of_asyncio = getattr(getattr(there, "func", None), "__name__", "") == "_on_sigint"  # from 3.11 on, in Python's place
        if there is signal.default_int_handler or of_asyncio:
            loop.add_signal_handler(signal.SIGINT, os.kill, os.getpid(), signal.SIGTERM)

    def _step(self) -> None:
        """Begins what has come."""
        if os.getpid() != self._pid:
            leave_child()
        code = 1
        while code == 1:
            err, taken, codes = _native.Error(), ctypes.c_void_p(), []  # type: ignore[var-annotated]
            try:
                with self._lock:
                    codes.extend(map(lib.jobq_worker_take, (self._worker,), (byref(taken),), (byref(err),)))
            finally:
                if taken.value is not None:
                    self._begin(taken.value)
            code = codes[0]
            if code == 1 and taken.value is None:
                return
        if code < 0:
            self._failure = of_code(code, err.message.decode("utf-8", "replace"))
        self._over.set()

    def _begin(self, work: int) -> None:
        handler = self._table[lib.jobq_work_kind(work).decode()]
        task = self._tasks[work] = asyncio.get_running_loop().create_task(self._job(handler, work))
        task.add_done_callback(functools.partial(self._cancelled_before_its_first_step, handler, work))

    def _cancelled_before_its_first_step(self, handler: Handler[Any, Any], work: int, task: "asyncio.Task[None]") -> None:
        """Of such a task no line has run, so nothing has answered."""
        if not task.cancelled() or work not in self._tasks:
            return
        try:
            with self._lock:
                context = context_of(work, self._lock)
            cancelled = context.should_stop() is Stop.CANCEL
            context.end()
            Answers(work, self._lock).outcome(Cancel("cancelled before it began") if cancelled else Snooze(0))
        except JobqError as error:
            self._unanswered(handler, error)
        del self._tasks[work]

    def _unanswered(self, handler: Handler[Any, Any], error: JobqError) -> None:
        if self._failure is None:
            print(f"jobq: cannot answer a job of {handler.kind}: {one_line(error)}", file=sys.stderr)

    def _stop(self, work: int, data: Optional[int]) -> None:
        task = self._of_threads.get(work) if work in self._in_threads else self._tasks.get(work)
        if task is not None:
            task.cancel()

    # ---- one job ----

    async def _job(self, handler: Handler[Any, Any], work: int) -> None:
        """In the task's own context: what the function sets in it ends with it."""
        answers = Answers(work, self._lock)
        try:
            try:
                with self._lock:
                    context = context_of(work, self._lock)
            except Exception as error:
                answers.error(error, -1)
                return
            token = enter(context)
            try:
                insist(answers, await self._ending(handler, work, context))
            finally:
                leave(context, token)
        except JobqError as error:
            self._unanswered(handler, error)
        finally:
            if answers.given or not self._interrupted:
                self._tasks.pop(work, None)

    async def _ending(self, handler: Handler[Any, Any], work: int, context: Context) -> Ending:
        """Runs it, and says what to tell jobqd."""
        try:
            result = await self._call(handler, work, context)
        except _NoRoom:
            context.end()
            return lambda answers: answers.outcome(Snooze(0))
        except BaseException as error:  # whatever the function raises is its own affair
            if os.getpid() != self._pid:
                leave_child(error)
            stop = context.should_stop()
            context.end()
            if isinstance(error, asyncio.CancelledError):
                return self._of_cancelled(handler, context, stop, error, work in self._in_threads)
            if isinstance(error, SystemExit):
                self._on_exit(error)
            return of_error(handler, context, error)
        if os.getpid() != self._pid:
            leave_child()
        context.end()
        return of_result(context, result)

    def _of_cancelled(
        self, handler: Handler[Any, Any], context: Context, stop: Stop, error: asyncio.CancelledError, in_thread: bool
    ) -> Ending:
        """The coroutine has ended with CancelledError: as we asked, or by its own doing."""
        if stop is Stop.CANCEL:
            return lambda answers: answers.outcome(Cancel("stopped when asked" if context.begun else "cancelled before it began"))
        if stop is Stop.NOW or self._interrupted:
            return lambda answers: answers.outcome(Snooze(1 if in_thread else 0))
        return of_error(handler, context, error)

    async def _call(self, handler: Handler[Any, Any], work: int, context: Context) -> Any:
        limit = self._limits.get(handler.kind)
        if limit is None:
            return await self._run(handler, work, context)
        await _room_in(limit, context)
        try:
            return await self._run(handler, work, context)
        finally:
            limit.release()

    async def _run(self, handler: Handler[Any, Any], work: int, context: Context) -> Any:
        if not handler.is_coroutine:
            return await self._run_in_thread(handler, work, context)
        with hooks.around(context):
            coroutine = prepared(handler, context, context.job.args)()
            context.begun = True
            with Guard():
                return await _soft.limited(coroutine, handler.soft_timeout_s)

    async def _run_in_thread(self, handler: Handler[Any, Any], work: int, context: Context) -> Any:
        pid, loop = self._pid, asyncio.get_running_loop()

        def function() -> Any:
            try:
                with hooks.around(context):
                    inner = prepared(handler, context, context.job.args)
                    context.begun = True
                    began = time.monotonic()
                    with Guard():
                        result = _soft.call(inner, handler.soft_timeout_s)
                    if inspect.iscoroutine(result):  # of a coroutine function behind a plain wrapper
                        result = self._on_loop(loop, work, context, result, _soft.left(handler.soft_timeout_s, began))
            except BaseException as error:
                if os.getpid() != pid:
                    leave_child(error)
                raise
            if os.getpid() != pid:
                leave_child()
            return result

        self._in_threads[work] = handler
        try:
            run = functools.partial(contextvars.copy_context().run, _outside_of_futures, function)
            result = await loop.run_in_executor(self._threads, run)
        finally:
            if not self._interrupted:
                del self._in_threads[work]
        if isinstance(result, _Raised):
            if isinstance(result.error, StopIteration):  # which a coroutine cannot raise
                raise RuntimeError("the function raised StopIteration") from result.error
            raise result.error
        return result

    def _on_loop(
        self, loop: asyncio.AbstractEventLoop, work: int, context: Context, coroutine: "Coroutine[Any, Any, Any]", limit: Optional[float]
    ) -> Any:
        """Runs a coroutine on the loop, while this thread waits within the middleware. It can be cancelled as any other."""
        ended: "concurrent.futures.Future[Any]" = concurrent.futures.Future()

        async def run() -> Any:
            try:
                with Guard():
                    if context.should_stop() in (Stop.CANCEL, Stop.NOW):
                        raise asyncio.CancelledError  # it was asked before this task was there
                    return await _soft.limited(coroutine, limit)
            except BaseException as error:
                return _Raised(error)

        def end(task: "asyncio.Task[Any]") -> None:
            self._of_threads.pop(work, None)
            coroutine.close()  # where it has not begun
            ended.set_result(_Raised(asyncio.CancelledError()) if task.cancelled() else task.result())

        def begin() -> None:
            self._of_threads[work] = loop.create_task(run())
            self._of_threads[work].add_done_callback(end)

        loop.call_soon_threadsafe(begin)
        result = ended.result()
        if isinstance(result, _Raised):
            raise result.error
        return result
