"""jobq in a Django project; Django is needed when this module is imported, and only then.

    INSTALLED_APPS = [..., "jobq.django.JobqConfig"]
    JOBQ = {"DATABASE": "default"}

* Each app's module ``jobs`` is imported, so that its ``@jobq.worker`` functions are known.
* ``.enqueue()`` of decorated functions uses a client on the database that ``JOBQ`` names: an alias of ``DATABASES``
  ("default" where nothing is said), or with ``DSN`` a connection string. ``SCHEMA`` is the schema, "jobq" where nothing is said.
  In Django's tests it is the test database that the alias stands for, which needs the schema, too; a ``DSN`` stays as it is.
  This client has connections of its own: its jobs stay if Django's transaction rolls back, and may run before it commits.
  Within ``atomic()`` it warns (:class:`OutsideTransactionWarning`).
* Around each job Django's old and broken connections are closed, as around a request; before it each one is asked whether
  the server is still there, whatever CONN_HEALTH_CHECKS says: a job that fails costs an attempt.

:func:`enqueue` makes a job in Django's own transaction; :func:`enqueue_on_commit` after it. A coroutine function's database
calls run in a thread of asgiref's, where these connections are not: there ``await sync_to_async(close_old_connections)()``.
"""

from __future__ import annotations

import asyncio
import warnings
from typing import Any, Dict, Iterator, Optional, TypeVar

from django.apps import AppConfig
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.utils.module_loading import autodiscover_modules

from ._operations import Operation
from .client import Client, JobLike, outside
from .context import Context
from .handlers import get_client, set_client
from .hooks import log, middleware
from .model import Enqueued

T = TypeVar("T")

_MEMBERS = ("DATABASE", "DSN", "SCHEMA")

#: Django's name for a connection's parameter, and libpq's.
_PARAMETERS = (("NAME", "dbname"), ("USER", "user"), ("PASSWORD", "password"), ("HOST", "host"), ("PORT", "port"))

#: Members of OPTIONS that are Django's or the driver's own.
_NOT_LIBPQS = ("isolation_level", "server_side_binding", "pool", "assume_role", "cursor_factory", "connection_factory", "prepare_threshold")


def _settings() -> Dict[str, Any]:
    given = getattr(settings, "JOBQ", {})
    if not isinstance(given, dict):
        raise ImproperlyConfigured(f"JOBQ must be a dict with the members {', '.join(_MEMBERS)}, got {given!r:.100}")
    for name in given:
        if name not in _MEMBERS:
            raise ImproperlyConfigured(f"JOBQ has no member {name!r}; allowed are {', '.join(_MEMBERS)}")
    if "DATABASE" in given and "DSN" in given:
        raise ImproperlyConfigured("JOBQ has DATABASE and DSN, which cannot both be set")
    return given


def alias() -> str:
    """The alias of ``DATABASES`` in which jobs are."""
    name: str = _settings().get("DATABASE", "default")
    return name


def conninfo(using: Optional[str] = None) -> str:
    """libpq's connection string for one of ``DATABASES``."""
    name = alias() if using is None else using
    try:
        given = settings.DATABASES[name]
    except KeyError:
        raise ImproperlyConfigured(f"DATABASES has no {name!r}, which JOBQ[\"DATABASE\"] names") from None
    if "postg" not in given.get("ENGINE", ""):
        raise ImproperlyConfigured(f"DATABASES[{name!r}] must be a PostgreSQL, its ENGINE is {given.get('ENGINE')!r}")
    options = {key: value for key, value in given.get("OPTIONS", {}).items() if key not in _NOT_LIBPQS}
    words = {libpqs: given.get(djangos) for djangos, libpqs in _PARAMETERS}
    words.update(options)
    return " ".join(f"{key}={_quoted(value)}" for key, value in words.items() if value not in (None, ""))


def _quoted(value: Any) -> str:
    return "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"


class OutsideTransactionWarning(UserWarning):
    """A job was enqueued within ``transaction.atomic()``, but by a connection of jobq's own: it stays if the transaction rolls
    back, and may run before it commits."""


class _Client(Client):
    """The client of the settings. It warns where a job looks as if it were in Django's transaction, and is not."""

    def _enqueue(self, operation: Operation[T], connection: Any) -> T:
        if connection is None and "DSN" not in _settings() and _in_atomic(alias()):
            warnings.warn(
                "a job is enqueued within transaction.atomic(), but by a connection of jobq's own: it stays if the transaction "
                "rolls back, and may run before it commits; use jobq.django.enqueue(resize.job(...)) or "
                ".options(connection=connection), or jobq.django.enqueue_on_commit",
                OutsideTransactionWarning,
                stacklevel=outside(),
            )
        return super()._enqueue(operation, connection)


def _in_atomic(name: str) -> bool:
    """Whether this thread is within an atomic block of the application's. Those that Django's TestCase puts around a class and
    around each test are none: no code of the application has asked for them."""
    connection = connections[name]
    if not connection.in_atomic_block:
        return False
    blocks = getattr(connection, "atomic_blocks", None)
    if blocks is not None:  # from Django 4.0 on
        return not blocks or any(not getattr(block, "_from_testcase", False) for block in blocks)
    # Before, TestCase turns the check of durable=True off: one block around the class, and one around the test within it.
    of_a_test = not getattr(transaction.Atomic, "_ensure_durability", True)
    return not of_a_test or len(connection.savepoint_ids) > 1


def client() -> Client:
    """A client on the database that the settings name. It opens its connections when they are wanted, and reads the name of the
    database then: a test runner changes it when all apps are there."""
    given = _settings()
    return _Client(given["DSN"] if "DSN" in given else conninfo, schema=given.get("SCHEMA"))


def enqueue(job: JobLike, *, using: Optional[str] = None) -> Enqueued:
    """Enqueues in Django's transaction: ``enqueue(resize.job(photo.id))``. The job is there if it commits. ``using``: the
    alias; None: the one of the settings."""
    return get_client().enqueue_job(job, connection=connections[alias() if using is None else using])


def enqueue_on_commit(job: JobLike, *, using: Optional[str] = None) -> None:
    """Enqueues when Django's transaction has committed, at once where there is none: for jobs in another database. A process
    that dies in between loses the job, where :func:`enqueue` would not. ``using``: the alias whose transaction counts; None:
    the one of the settings."""
    transaction.on_commit(lambda: _enqueue_later(job), using=alias() if using is None else using)


def _enqueue_later(job: JobLike) -> None:
    get_client().enqueue_job(job)


def close_connections(context: Context) -> Iterator[None]:
    """The middleware around jobs."""
    if _is_sync():
        _close_old()
        for connection in connections.all():
            if connection.connection is not None and not connection.in_atomic_block and not connection.is_usable():
                connection.close()
    try:
        yield
    finally:
        if _is_sync():
            try:
                _close_old()
            except Exception:  # the job is done, and is not done again because of this
                log.exception("cannot close Django's connections")


def _close_old() -> None:
    """As Django's close_old_connections, which before Django 4.1 also closed what is in an atomic block, as a test's is."""
    for connection in connections.all():
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


def _is_sync() -> bool:
    """Whether this is no event loop's thread, where Django refuses to close a connection."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return True
    return False


class JobqConfig(AppConfig):
    """For INSTALLED_APPS."""

    name = "jobq.django"
    label = "jobq"
    verbose_name = "jobq"
    _installed = False

    def ready(self) -> None:
        """When all apps are there."""
        if not JobqConfig._installed:
            JobqConfig._installed = True
            middleware(close_connections)
        set_client(client())
        autodiscover_modules("jobs")
