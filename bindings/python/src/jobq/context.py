"""The job under way, as its function sees it."""

from __future__ import annotations

import contextvars
import dataclasses
import datetime
import enum
import logging
import threading
from typing import Any, Callable, ContextManager, Dict, Optional

from .errors import StateError


class Stop(enum.IntEnum):
    """Whether a function should stop, and how soon. False when it need not."""

    NO = 0
    DRAIN = 1  #: the worker is to end after this job: finish it, or if it takes long, raise Snooze for another worker
    CANCEL = 2  #: the job is cancelled or past its deadline: return soon, or be killed
    NOW = 3  #: the worker was told to go at once, or jobqd is gone


@dataclasses.dataclass(frozen=True)
class Job:
    """What is being run. ``args`` as JSON has them. ``timeout``: how long the attempt may take; None: no limit."""

    id: int
    attempt: int
    max_attempts: int
    queue: str
    kind: str
    args: Dict[str, Any]
    meta: Dict[str, Any]
    timeout: Optional[datetime.timedelta]

    @property
    def last_attempt(self) -> bool:
        """Whether there is none after this one."""
        return self.attempt >= self.max_attempts


class Context:
    """A function whose first parameter is annotated with this gets it; :func:`current` gives it to everything else that the
    function calls. It counts until the function has returned; any thread may use it."""

    def __init__(
        self,
        job: Job,
        progress: Callable[[float, Optional[str]], None],
        should_stop: Callable[[], int],
        lock: Optional[ContextManager[Any]] = None,
    ) -> None:
        self.job = job
        self.begun = False  #: whether the function has been called; for jobq itself
        self._lock: ContextManager[Any] = threading.RLock() if lock is None else lock
        self._progress: Optional[Callable[[float, Optional[str]], None]] = progress
        self._should_stop: Optional[Callable[[], int]] = should_stop

    def progress(self, done: float, note: Optional[str] = None) -> None:
        """How far it is: ``done`` from 0 to 1; ``note``: one line. Cheap: what comes within 50 ms is dropped."""
        with self._lock:
            if self._progress is None:
                raise StateError("the job has ended")
            self._progress(done, note)

    def should_stop(self) -> Stop:
        """Whether the function should stop, and how soon. A long loop asks often: it costs a few microseconds."""
        with self._lock:
            if self._should_stop is None:
                return Stop.NOW
            return Stop(self._should_stop())

    def complete(self, connection: Any, result: Any = None, *, schema: Optional[str] = None) -> None:
        """Completes the job in your own transaction, so that what the function has written is there if and only if the job is
        completed. Call it last, before the commit, and return as ever: jobqd finds the job done, with this ``result``. If the
        transaction rolls back, the job runs on, and ends as the function does.

        ``connection``: as of ``Client.enqueue``; its role needs ``jobq_worker``. ``schema``: jobq's, "jobq" by default.
        StateError: the job does not run this attempt any more: roll back, another worker may have it. InvalidError: the result has
        no JSON form, or is too large. From a coroutine: :func:`jobq.aio.complete`."""
        from . import _connections

        _connections.run_on(connection, self.completion(result, schema))

    def completion(self, result: Any, schema: Optional[str]) -> Any:
        """What completes it. For jobq itself."""
        from . import _operations, _running

        return _operations.complete(schema, self.job.id, self.job.attempt, _running.text_of_result(result))

    def end(self) -> None:
        """What it was lent is gone. For jobq itself."""
        with self._lock:
            self._progress = self._should_stop = None

    def __repr__(self) -> str:
        return f"<jobq.Context of job {self.job.id}, {self.job.kind}, attempt {self.job.attempt}>"


_current: "contextvars.ContextVar[Optional[Context]]" = contextvars.ContextVar("jobq_context", default=None)


def current() -> Context:
    """The context of the job that runs. StateError outside of one."""
    context = _current.get()
    if context is None:
        raise StateError("no job is running here")
    return context


def enter(context: Context) -> "contextvars.Token[Optional[Context]]":
    """Makes it the current one. For jobq itself."""
    return _current.set(context)


def leave(context: Context, token: "contextvars.Token[Optional[Context]]") -> None:
    """The end of it."""
    _current.reset(token)
    context.end()


# ---- logging ----


def _install() -> None:
    """Log records have the job that was running: ``jobq_id``, ``jobq_kind`` and ``jobq_attempt``; None outside of one."""
    make = logging.getLogRecordFactory()

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made = make(*args, **kwargs)
        context = _current.get()
        job = context.job if context is not None else None
        made.jobq_id = job.id if job else None
        made.jobq_kind = job.kind if job else None
        made.jobq_attempt = job.attempt if job else None
        return made

    logging.setLogRecordFactory(record)


_install()
