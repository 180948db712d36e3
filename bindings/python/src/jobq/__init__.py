"""jobq: a job queue on Postgres. Enqueue jobs, also in a transaction of your own, and write workers for jobqd.

    import jobq

    client = jobq.Client("postgresql:///app")
    job = client.enqueue("resize", {"path": "/srv/a.jpg"}, queue="media")
    print(client.wait(job, timeout=30).result)

    @jobq.worker("resize", queue="media", timeout=60)
    def resize(path: str, width: int = 640) -> dict:
        ...
        return {"width": width}

    resize.enqueue("/srv/a.jpg")
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from ._annotations import AnnotationWarning
from ._version import __version__
from .client import Client, IgnoredOptionsWarning, JobLike
from .context import Context, Job, Stop, current
from .encoding import register_type
from .errors import (
    ConflictError,
    ConnectionLostError,
    DatabaseError,
    GoneError,
    InvalidError,
    JobqError,
    LibraryError,
    NotFoundError,
    ProtocolError,
    ResultError,
    SchemaError,
    StateError,
    TimedOutError,
)
from .handlers import Backoff, Call, Handler, get_client, handlers, set_client, worker
from .hooks import middleware, on_error
from .model import AttemptError, Enqueued, JobId, JobInfo, NewJob, OnConflict, Seconds, Unique
from .outcome import Cancel, Discard, Outcome, Retry, Snooze, SoftTimeout
from .validation import ArgumentError

#: Stored errors and tracebacks have the names by which programs know these.
for _each in list(globals().values()):
    if isinstance(_each, type) and issubclass(_each, BaseException) and _each.__module__.startswith("jobq."):
        _each.__module__ = "jobq"

if TYPE_CHECKING:
    from . import aio as aio
    from . import testing as testing


def __getattr__(name: str) -> ModuleType:
    """jobq.aio and jobq.testing, imported by whoever names them first: asyncio is not for everybody."""
    if name in ("aio", "testing"):
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "AnnotationWarning",
    "ArgumentError",
    "AttemptError",
    "Backoff",
    "Call",
    "Cancel",
    "Client",
    "ConflictError",
    "ConnectionLostError",
    "Context",
    "DatabaseError",
    "Discard",
    "Enqueued",
    "GoneError",
    "Handler",
    "IgnoredOptionsWarning",
    "InvalidError",
    "Job",
    "JobId",
    "JobInfo",
    "JobLike",
    "JobqError",
    "LibraryError",
    "NewJob",
    "NotFoundError",
    "OnConflict",
    "Outcome",
    "ProtocolError",
    "ResultError",
    "Retry",
    "SchemaError",
    "Seconds",
    "Snooze",
    "SoftTimeout",
    "StateError",
    "Stop",
    "TimedOutError",
    "Unique",
    "__version__",
    "current",
    "get_client",
    "handlers",
    "middleware",
    "on_error",
    "register_type",
    "set_client",
    "worker",
]
