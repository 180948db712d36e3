"""What an application adds around all of its jobs: :func:`middleware` and :func:`on_error`; and the log of what failed.

Each failed attempt is logged by the logger ``jobq.worker`` at the level ERROR, with the exception: an error tracker's
integration for :mod:`logging` sees it without more. A :class:`jobq.Retry` is asked for: it is a WARNING, without a trace.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
from types import TracebackType
from typing import Any, Callable, ContextManager, List, Optional, TypeVar

from .context import Context
from .errors import InvalidError
from .outcome import Retry

log = logging.getLogger("jobq.worker")

F = TypeVar("F", bound=Callable[..., Any])

_HERE = os.path.dirname(os.path.abspath(__file__))


def frames_of(error: BaseException) -> Optional[TracebackType]:
    """The traceback from the job's function on, without jobq's own frames."""
    frames = error.__traceback__
    while frames is not None and os.path.dirname(os.path.abspath(frames.tb_frame.f_code.co_filename)) == _HERE:
        frames = frames.tb_next
    return frames or error.__traceback__


_on_error: List[Callable[[Context, BaseException], Any]] = []
_middleware: List[Callable[[Context], ContextManager[Any]]] = []


def on_error(function: F) -> F:
    """Decorates a function that is told of each attempt that fails: ``function(context, error)``, in the worker, while the
    exception is handled and before jobqd hears of it. Told of: what a job's function raises, ``jobq.Retry``, exceptions of
    ``discard_on``, arguments that it does not take, and a result that cannot be kept (:class:`jobq.ResultError`: the job is
    completed without it). Not told of: Snooze, Discard and Cancel, which the function has chosen; a crash or a kill, of which
    only jobqd knows (``on_failure`` in its configuration).

    It should be quick: the job's end waits for it. What it raises is logged, and changes nothing.
    """
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise InvalidError(f"on_error decorates a plain function (context, error), got {function!r:.100}")
    if function not in _on_error:
        _on_error.append(function)
    return function


def middleware(function: F) -> F:
    """Decorates a generator function of one ``yield``, or one that returns a context manager: ``function(context)`` is entered
    before each job's function is called, before its arguments are converted, and left when it has ended, in the same thread.
    The first declared is the outermost. What it raises fails the attempt; an exception of the job's is raised at the yield.

        @jobq.middleware
        def timed(context):
            started = time.monotonic()
            try:
                yield
            finally:
                statsd.timing(context.job.kind, time.monotonic() - started)
    """
    if not callable(function) or inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidError(
            f"middleware decorates a generator function of one yield, or a function that returns a context manager, got "
            f"{function!r:.100}"
        )
    made: Any = contextlib.contextmanager(function) if inspect.isgeneratorfunction(function) else function
    _middleware.append(made)
    return function


def around(context: Context) -> ContextManager[Any]:
    """All middleware, entered. For jobq itself."""
    stack = contextlib.ExitStack()
    with stack:
        for make in _middleware:
            stack.enter_context(make(context))
        return stack.pop_all()
    raise AssertionError("a middleware has swallowed another's exception")


def tell(context: Context, error: BaseException, what: Optional[str] = None) -> None:
    """Logs it, and tells the application's functions. For jobq itself, within the job."""
    job = context.job
    args = (job.id, job.kind, job.attempt, job.max_attempts, what or "failed")
    try:
        if isinstance(error, Retry) and error.__cause__ is None:
            log.warning("job %s (%s), attempt %s of %s, %s: %s", *args, error)
        else:
            cause = error.__cause__ if isinstance(error, Retry) and error.__cause__ is not None else error
            log.error("job %s (%s), attempt %s of %s, %s: %s", *args, _brief(cause), exc_info=(type(cause), cause, frames_of(cause)))
    except BaseException:  # a logging handler's
        pass
    for function in list(_on_error):
        try:
            function(context, error)
        except BaseException:  # also SystemExit and Ctrl-C: the job is to be answered
            with contextlib.suppress(BaseException):
                log.exception("on_error function %s failed", getattr(function, "__qualname__", function))


def _brief(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException:
        text = "<exception str() failed>"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
