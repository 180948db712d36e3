"""A job's function is run, and what came of it is told to libjobq."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import datetime
import functools
import inspect
import os
import sys
import threading
import time
import traceback
from ctypes import byref
from typing import Any, Callable, ContextManager, Coroutine, Dict, List, Mapping, Optional

from . import _native, _soft, encoding, errors, hooks
from ._forks import Guard, leave_child
from ._native import lib
from ._operations import check
from .context import Context, Job, enter, leave
from .errors import InvalidError, JobqError, ResultError
from .handlers import Handler
from .model import DELAY_MOST_MS, milliseconds
from .outcome import Cancel, Discard, Outcome, Retry, Snooze
from .validation import ArgumentError

class Loop:
    """The event loop for coroutine functions: one for the process, so that what they keep between jobs stays alive."""

    def __init__(self) -> None:
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._pid = 0

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """To its end. Where this thread has a loop that runs (a test's, say) another thread does it meanwhile."""
        if not self._is_within_one():
            return self._run(coroutine)
        context = contextvars.copy_context()
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            return thread.submit(lambda: context.run(asyncio.run, coroutine)).result()

    @staticmethod
    def _is_within_one() -> bool:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return False
        return True

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        if self._loop is None or self._pid != os.getpid():
            self._loop, self._pid = asyncio.new_event_loop(), os.getpid()
            asyncio.set_event_loop(self._loop)
        task = self._loop.create_task(coroutine)
        try:
            return self._loop.run_until_complete(task)
        except BaseException:
            self._end(task)
            if task.done() and not task.cancelled() and task.exception() is None:
                return task.result()  # its work is done
            raise

    def _end(self, task: "asyncio.Task[Any]") -> None:
        """After a signal handler has raised in the loop: the next job's run must not resume the task."""
        while self._loop is not None and not self._loop.is_closed() and not task.done():
            task.cancel()
            try:
                self._loop.run_until_complete(task)
            except BaseException:  # its own end, or another signal's
                pass

    def close(self) -> None:
        """What is still pending on it is cancelled."""
        if self._loop is None or self._pid != os.getpid():
            return
        loop, self._loop = self._loop, None
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def job_of(work: int) -> Job:
    """The job under way, from libjobq's jobq_work."""
    timeout_ms = lib.jobq_work_timeout_ms(work)
    return Job(
        id=lib.jobq_work_id(work),
        attempt=lib.jobq_work_attempt(work),
        max_attempts=lib.jobq_work_max_attempts(work),
        queue=lib.jobq_work_queue(work).decode(),
        kind=lib.jobq_work_kind(work).decode(),
        args=encoding.loads(lib.jobq_work_args(work)),
        meta=encoding.loads(lib.jobq_work_meta(work)),
        timeout=datetime.timedelta(milliseconds=timeout_ms) if timeout_ms else None,
    )


def context_of(work: int, lock: "ContextManager[Any]") -> Context:
    """A context on libjobq's jobq_work, whose functions may be called from any thread: `lock` is the worker's."""

    def progress(done: float, note: Optional[str]) -> None:
        err = _native.Error()
        line = None if note is None else note.encode("utf-8", "replace").replace(b"\0", b"?")
        check(lib.jobq_work_progress(work, float(done), line, byref(err)), err)

    return Context(job_of(work), progress, lambda: int(lib.jobq_work_should_stop(work)), lock)


def prepared(handler: Handler[Any, Any], context: Context, args: Mapping[str, Any]) -> Callable[[], Any]:
    """The call of the function, with its arguments converted."""
    kwargs = handler.parameters.convert(args)
    first = (context,) if handler.parameters.takes_context else ()
    return functools.partial(handler.function, *first, **kwargs)


def call(handler: Handler[Any, Any], context: Context, args: Mapping[str, Any], loop: Loop) -> Any:
    """Runs the function in the context, with what the application has around its jobs."""
    with hooks.around(context):
        function = prepared(handler, context, args)
        limit = handler.soft_timeout_s
        context.begun = True
        with Guard():
            if handler.is_coroutine:
                return loop.run(_soft.limited(function(), limit))
            began = time.monotonic()
            result = _soft.call(function, limit)
            if inspect.iscoroutine(result):  # of a coroutine function behind a plain wrapper
                return loop.run(_soft.limited(result, _soft.left(limit, began)))
            return result


# ---- what failed, in words ----


def _words(make: Callable[[BaseException], str], error: BaseException) -> str:
    """At least the class's name: an exception may raise when it is written."""
    for _ in range(2):  # again where Ctrl-C came in between
        try:
            return make(error)
        except BaseException:
            pass
    return type(error).__name__


def one_line(error: BaseException) -> str:
    """The exception's class and message, as the last line of a traceback has them."""
    return _words(_one_line, error)


def _one_line(error: BaseException) -> str:
    if isinstance(error, ArgumentError):
        return str(error)
    text = "".join(traceback.format_exception_only(type(error), error)).strip()
    return " ".join(text.split("\n")) if text else type(error).__name__


def trace(error: BaseException) -> str:
    """The traceback from the function on, without our own frames."""
    return _words(_trace, error)


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, hooks.frames_of(error)))


def _bytes(text: Any) -> bytes:
    """Also of a reason that is an exception."""
    return str(text).encode("utf-8", "replace").replace(b"\0", b"?")


def snoozed_ms(outcome: Snooze) -> int:
    """TypeError: it has no delay."""
    if not hasattr(outcome, "after_ms"):
        raise TypeError(f"{type(outcome).__name__} has no delay: its __init__ must call Snooze.__init__")
    return outcome.after_ms


class Answers:
    """Says how a job ended, to libjobq's jobq_work; `lock`: the worker's."""

    def __init__(self, work: int, lock: "ContextManager[Any]") -> None:
        self._work = work
        self._lock = lock
        self._codes: List[int] = []

    @property
    def given(self) -> bool:
        """Whether there is one, also where jobqd was gone: there is no second, and no jobq_work any more."""
        return any(code in (0, errors.EIO) for code in self._codes)

    def _say(self, function: Any, *args: Any) -> None:
        err = _native.Error()
        with self._lock:
            if self.given:
                return
            # The code is kept by C, with no instruction in between at which a signal handler could raise.
            self._codes.extend(map(function, (self._work,), *((each,) for each in args), (byref(err),)))
        check(self._codes[-1], err)

    def ok(self, text: Optional[bytes]) -> None:
        """Completed; None: no result. InvalidError: libjobq refuses it, and the job is not answered."""
        self._say(lib.jobq_work_ok, text)

    def ok_without_result(self, why: str) -> None:
        """Completed, and why its result is lost."""
        self._say(lib.jobq_work_ok_without_result, _bytes(why))

    def error(self, error: BaseException, after_ms: int, reason: Optional[str] = None) -> None:
        """Failed."""
        line = reason or one_line(error)
        self._say(lib.jobq_work_error, _bytes(line), _bytes(trace(error)), after_ms)

    def discard(self, reason: Optional[str]) -> None:
        """Never again."""
        self._say(lib.jobq_work_discard, _bytes(reason) if reason else None)

    def outcome(self, outcome: Outcome) -> None:
        """What the function has raised on purpose."""
        if isinstance(outcome, Snooze):
            self._say(lib.jobq_work_snooze, snoozed_ms(outcome))
        elif isinstance(outcome, Discard):
            self.discard(outcome.reason)
        elif isinstance(outcome, Cancel):
            self._say(lib.jobq_work_cancel, _bytes(outcome.reason) if outcome.reason else None)
        elif isinstance(outcome, Retry):
            cause = outcome.__cause__
            self.error(cause or outcome, outcome.after_ms, outcome.reason)
        else:
            self.error(outcome, -1)


def delay_ms(handler: Handler[Any, Any], attempt: int) -> int:
    """The handler's own back-off; -1: the queue's."""
    if handler.backoff is None:
        return -1
    return milliseconds(handler.backoff(attempt), "what backoff returned", 0, DELAY_MOST_MS)


def _delay_or_the_queues(handler: Handler[Any, Any], attempt: int) -> int:
    try:
        return delay_ms(handler, attempt)
    except Exception as fault:  # of the back-off's own function: the job's failure is what matters
        print(f"jobq: the backoff of {handler.kind} failed: {one_line(fault)}", file=sys.stderr)
        return -1


# ---- how it ended ----

Ending = Callable[[Answers], None]


def is_hopeless(handler: Handler[Any, Any], error: BaseException) -> bool:
    """Whether no further attempt can end otherwise, as the decorator's discard_on says."""
    return isinstance(error, handler.discard_on)


def of_error(handler: Handler[Any, Any], context: Context, error: BaseException) -> Ending:
    """The function has raised something: tells the application, and returns what to tell jobqd."""
    try:
        return _of_error(handler, context, error)
    except BaseException:  # of a signal handler: that is no concern of the job's
        return lambda answers: answers.error(error, -1)


def _of_error(handler: Handler[Any, Any], context: Context, error: BaseException) -> Ending:
    if isinstance(error, (Snooze, Discard, Cancel)):
        deliberate: Outcome = error
        return lambda answers: answers.outcome(deliberate)
    hopeless = is_hopeless(handler, error)
    hooks.tell(context, error, "is discarded" if hopeless else None)
    if hopeless:
        return lambda answers: answers.discard(one_line(error))
    if isinstance(error, Outcome):
        other: Outcome = error
        return lambda answers: answers.outcome(other)
    after_ms = _delay_or_the_queues(handler, context.job.attempt)
    return lambda answers: answers.error(error, after_ms)


def _is_an_exception(result: Any) -> Optional[str]:
    if isinstance(result, BaseException) or (isinstance(result, type) and issubclass(result, BaseException)):
        return f"the function returned {result!r:.100}: raise it, do not return it"
    return None


def text_of_result(result: Any) -> Optional[bytes]:
    """As jobqd gets it. ResultError: it has no JSON form that the database takes."""
    interrupted: Optional[BaseException] = None
    for _ in range(2):  # again where Ctrl-C came in between
        try:
            return None if result is None else encoding.to_bytes(encoding.dumps(result, "the result"), "the result")
        except InvalidError as error:
            raise ResultError(_is_an_exception(result) or str(error)) from error.__cause__
        except BaseException as error:
            interrupted = error
    raise ResultError(f"the result cannot be written as JSON: {one_line(interrupted or KeyboardInterrupt())}")


def of_result(context: Context, result: Any) -> Ending:
    """The function has returned. Its work is done, and is not done again, whatever it returned: what cannot be kept is left
    out, and the job's errors and the log say why."""

    def say(answers: Answers) -> None:
        try:
            try:
                answers.ok(text_of_result(result))
            except ResultError:
                raise
            except (InvalidError, MemoryError) as refused:  # by libjobq: it is too large, or nests too deep
                raise ResultError(f"the result cannot be kept: {refused}") from refused
        except ResultError as fault:
            hooks.tell(context, fault, "is completed without its result")
            answers.ok_without_result(f"the result was left out: {fault}")

    return say


def insist(answers: Answers, ending: Ending) -> None:
    """Says it, also when a signal handler raises meanwhile: that is no concern of the job's. Where it cannot be said the attempt
    has failed: a job that is not answered would end the worker."""
    for _ in range(10):
        try:
            ending(answers)
            return
        except BaseException as raised:
            if answers.given:
                raise
            fault = raised
        if isinstance(fault, (JobqError, MemoryError)):
            break
    answers.error(fault, -1, f"the answer failed: {one_line(fault)}")


# ---- one job ----


def run(handler: Handler[Any, Any], work: int, loop: Loop, lock: "ContextManager[Any]") -> None:
    """One job, from jobq_work to its answer, in a copy of the context: what the function sets in it ends with it. SystemExit
    leaves it, and so does KeyboardInterrupt that came before the function began: then the job was given back."""
    contextvars.copy_context().run(_run, handler, work, loop, lock)


def _run(handler: Handler[Any, Any], work: int, loop: Loop, lock: "ContextManager[Any]") -> None:
    pid = os.getpid()
    answers = Answers(work, lock)
    try:
        context = context_of(work, lock)
    except Exception as error:
        answers.error(error, -1)
        return
    except BaseException:
        answers.outcome(Snooze(0))
        raise
    token = enter(context)
    try:
        failure: Optional[BaseException] = None
        result: Any = None
        try:
            result = call(handler, context, context.job.args, loop)
        except BaseException as raised:  # whatever the function raises is its own affair
            failure = raised
        if os.getpid() != pid:
            leave_child(failure)
        context.end()
        if failure is None:
            ending = of_result(context, result)
        elif isinstance(failure, SystemExit):
            raise failure
        elif not context.begun and isinstance(failure, KeyboardInterrupt):
            answers.outcome(Snooze(0))
            raise failure
        else:
            ending = of_error(handler, context, failure)
        insist(answers, ending)
    finally:
        leave(context, token)


Table = Dict[str, Handler[Any, Any]]


def kinds(table: Table, loop: Loop, on_exit: Callable[[SystemExit], BaseException]) -> Any:
    """The handlers as libjobq's table of kinds, which keeps all that it refers to, for jobq.testing. `on_exit`: what becomes of
    a sys.exit() in a function: the job fails with what it returns."""
    rows = names(table)
    for row, handler in zip(rows, table.values()):
        row.handler = _native.HANDLER(_callback(handler, loop, on_exit))
    return rows


def names(table: Table) -> Any:
    """The kinds without handlers, for a worker whose jobs are taken."""
    rows = (_native.WorkerKind * len(table))()
    for row, handler in zip(rows, table.values()):
        row.kind = handler.kind.encode()
    return rows


def _callback(
    handler: Handler[Any, Any], loop: Loop, on_exit: Callable[[SystemExit], BaseException]
) -> Callable[[int, Optional[int]], int]:
    lock = threading.RLock()

    def callback(work: int, data: Optional[int]) -> int:
        try:
            try:
                run(handler, work, loop, lock)
            except SystemExit as request:
                Answers(work, lock).error(on_exit(request), _delay_or_the_queues(handler, lib.jobq_work_attempt(work)))
            return 0
        except BaseException as error:  # nothing may reach C
            print(f"jobq: cannot answer job {lib.jobq_work_id(work)}: {one_line(error)}", file=sys.stderr)
            return 1

    return callback


def no_handlers(what: str) -> InvalidError:
    """Nothing to run."""
    return InvalidError(f"{what} has no @jobq.worker function")
