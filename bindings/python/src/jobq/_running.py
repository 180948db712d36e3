"""A job's function is run, and what came of it is told to libjobq."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import datetime
import inspect
import os
import sys
import traceback
from ctypes import byref
from typing import Any, Callable, Coroutine, Dict, Mapping, Optional

from . import _native, encoding, errors
from ._native import lib
from ._operations import check
from .context import Context, Job, enter, leave
from .errors import InvalidError
from .handlers import Handler
from .model import milliseconds
from .outcome import Cancel, Discard, Outcome, Retry, Snooze
from .validation import ArgumentError

_HERE = os.path.dirname(os.path.abspath(__file__))


class Loop:
    """The event loop for coroutine functions: one for the process, so that what they keep between jobs stays alive."""

    def __init__(self) -> None:
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._pid = 0

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """To its end. Where this thread has a loop that runs (a test's, say) another thread does it meanwhile."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._run(coroutine)
        context = contextvars.copy_context()
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            return thread.submit(lambda: context.run(asyncio.run, coroutine)).result()

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        if self._loop is None or self._pid != os.getpid():
            self._loop, self._pid = asyncio.new_event_loop(), os.getpid()
            asyncio.set_event_loop(self._loop)
        return self._loop.run_until_complete(coroutine)

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


def context_of(work: int) -> Context:
    """A context on libjobq's jobq_work."""

    def progress(done: float, note: Optional[str]) -> None:
        err = _native.Error()
        line = None if note is None else note.encode("utf-8", "replace").replace(b"\0", b"?")
        check(lib.jobq_work_progress(work, float(done), line, byref(err)), err)

    return Context(job_of(work), progress, lambda: int(lib.jobq_work_should_stop(work)))


def call(handler: Handler[Any, Any], context: Context, args: Mapping[str, Any], loop: Loop) -> Any:
    """Runs the function in the context."""
    token = enter(context)
    try:
        kwargs = handler.parameters.convert(args)
        first = (context,) if handler.parameters.takes_context else ()
        result = handler.function(*first, **kwargs)
        if inspect.iscoroutine(result):
            result = loop.run(result)
        return result
    finally:
        leave(context, token)


# ---- what failed, in words ----


def one_line(error: BaseException) -> str:
    """The exception's class and message, as the last line of a traceback has them."""
    if isinstance(error, ArgumentError):
        return str(error)
    text = "".join(traceback.format_exception_only(type(error), error)).strip()
    return " ".join(text.split("\n")) if text else type(error).__name__


def trace(error: BaseException) -> str:
    """The traceback from the function on: our own frames tell nobody anything."""
    frames = error.__traceback__
    while frames is not None and os.path.dirname(os.path.abspath(frames.tb_frame.f_code.co_filename)) == _HERE:
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames or error.__traceback__))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace").replace(b"\0", b"?")


class Answers:
    """Says how a job ended, to libjobq's jobq_work."""

    def __init__(self, work: int) -> None:
        self._work = work
        self.given = False  # also where jobqd was gone: there is no second one

    def _say(self, function: Any, *args: Any) -> None:
        err = _native.Error()
        code = function(self._work, *args, byref(err))
        self.given = code in (0, errors.EIO)
        check(code, err)

    def ok(self, result: Any) -> None:
        """Completed; None: no result."""
        text = None if result is None else encoding.to_bytes(encoding.dumps(result, "the result"), "the result")
        self._say(lib.jobq_work_ok, text)

    def error(self, error: BaseException, after_ms: int, reason: Optional[str] = None) -> None:
        """Failed."""
        line = reason or one_line(error)
        self._say(lib.jobq_work_error, _bytes(line), _bytes(trace(error)), after_ms)

    def outcome(self, outcome: Outcome) -> None:
        """What the function has raised on purpose."""
        if isinstance(outcome, Snooze):
            self._say(lib.jobq_work_snooze, outcome.after_ms)
        elif isinstance(outcome, Discard):
            self._say(lib.jobq_work_discard, _bytes(outcome.reason) if outcome.reason else None)
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
    return milliseconds(handler.backoff(attempt), "what backoff returned", 0)


def answer(answers: Answers, handler: Handler[Any, Any], attempt: int, error: BaseException) -> None:
    """Says how it ended that the function has raised something."""
    if isinstance(error, Outcome):
        answers.outcome(error)
        return
    try:
        after_ms = delay_ms(handler, attempt)
    except Exception as fault:  # of the back-off's own function: the job's failure is what matters
        print(f"jobq: the backoff of {handler.kind} failed: {one_line(fault)}", file=sys.stderr)
        after_ms = -1
    answers.error(error, after_ms)


def run(handler: Handler[Any, Any], work: int, loop: Loop) -> None:
    """One job, from jobq_work to its answer. SystemExit leaves it."""
    answers = Answers(work)
    try:
        context = context_of(work)
        result = call(handler, context, context.job.args, loop)
        answers.ok(result)
    except SystemExit:
        raise
    except BaseException as error:  # whatever the function raises is its own affair
        answer(answers, handler, lib.jobq_work_attempt(work), error)


Table = Dict[str, Handler[Any, Any]]


def kinds(table: Table, loop: Loop, on_exit: Callable[[SystemExit], BaseException]) -> Any:
    """The handlers as libjobq's table of kinds, which keeps all that it refers to. `on_exit`: what a sys.exit() in a function
    does, unless it ends the process: the job fails with what it returns."""
    rows = (_native.WorkerKind * len(table))()
    for row, handler in zip(rows, table.values()):
        row.kind = handler.kind.encode()
        row.handler = _native.HANDLER(_callback(handler, loop, on_exit))
    return rows


def _callback(
    handler: Handler[Any, Any], loop: Loop, on_exit: Callable[[SystemExit], BaseException]
) -> Callable[[int, Optional[int]], int]:
    def callback(work: int, data: Optional[int]) -> int:
        try:
            try:
                run(handler, work, loop)
            except SystemExit as request:
                answer(Answers(work), handler, lib.jobq_work_attempt(work), on_exit(request))
            return 0
        except BaseException as error:  # nothing may reach C
            print(f"jobq: cannot answer job {lib.jobq_work_id(work)}: {one_line(error)}", file=sys.stderr)
            return 1

    return callback


def no_handlers(what: str) -> InvalidError:
    """Nothing to run."""
    return InvalidError(f"{what} has no @jobq.worker function")
