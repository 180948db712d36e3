"""The application's own connections: psycopg 3, psycopg2, SQLAlchemy's and Django's, each with what it needs so that a job
commits or vanishes with the application's transaction.

A connection of psycopg is used by its address where that is safe: it must be in a transaction already (a driver sends its
BEGIN with the first statement, which libjobq would not do), and this process must have one libpq alone (wheels that bring
their own would take our pointer for something else). Otherwise, and for everything else, the SQL function is called through
a cursor of theirs.
"""

from __future__ import annotations

import sys
from contextlib import closing, suppress
from functools import lru_cache
from typing import Any, Callable, NoReturn, Optional, Sequence, TypeVar

from . import _native, errors
from ._operations import Operation, Row

T = TypeVar("T")

_KINDS = (
    "a psycopg or psycopg2 connection, a SQLAlchemy Session or Connection, or a Django connection"
)

PQTRANS_IDLE, PQTRANS_INTRANS = 0, 2


#: What each driver calls its connections: module, class, and what we call it.
_CLASSES = (
    ("psycopg", "AsyncConnection", "psycopg async"),
    ("psycopg", "Connection", "psycopg"),
    ("psycopg2.extensions", "connection", "psycopg2"),
    ("sqlalchemy.ext.asyncio", "AsyncSession", "sqlalchemy async"),
    ("sqlalchemy.ext.asyncio", "AsyncConnection", "sqlalchemy async"),
    ("sqlalchemy.ext.asyncio", "async_scoped_session", "sqlalchemy async"),
    ("sqlalchemy.engine", "Connection", "sqlalchemy"),
    ("sqlalchemy.orm", "Session", "sqlalchemy"),
    ("sqlalchemy.orm", "scoped_session", "sqlalchemy"),
    ("django.db.backends.base.base", "BaseDatabaseWrapper", "django"),
    ("django.utils.connection", "ConnectionProxy", "django"),
)


def kind_of(connection: Any) -> str:
    """Which of the connections that are known it is, by isinstance: so that one in an object proxy, as tracing libraries make
    them, is what it stands for. A driver that was not imported has made none."""
    for module, name, kind in _CLASSES:
        found = getattr(sys.modules.get(module), name, None)
        if isinstance(found, type) and isinstance(connection, found):
            return kind
    return ""


#: What is near a connection, by the end of its class's name, and what to hand over in its place.
_NEAR = (
    ("Cursor", "hand over the connection that it is of"),
    ("cursor", "hand over the connection that it is of"),
    ("CursorWrapper", "hand over the connection, such as django.db.connection"),
    ("CursorDebugWrapper", "hand over the connection, such as django.db.connection"),
    ("Engine", "hand over a connection in a transaction, as `with engine.begin() as connection` has"),
    ("sessionmaker", "hand over a session that it has made"),
    ("Pool", "hand over a connection of it"),
    ("ConnectionHandler", "hand over one of them, such as connections['default']"),
    ("Transaction", "hand over its connection"),
)


def what_it_is(connection: Any) -> str:
    """In words, with what to do where that can be told."""
    kind = connection if isinstance(connection, type) else type(connection)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(connection, type):
        return f"the class {name}"
    if isinstance(connection, str):
        return "a str; a client is opened on a connection string: jobq.Client(dsn)"
    for end, cure in _NEAR:
        if name.endswith(end):
            return f"a {name}: {cure}"
    return f"a {name}"


@lru_cache(maxsize=None)
def _libpq_of(n_modules: int) -> Optional[str]:
    """Reads the process's map once for each number of modules: a second libpq comes with an import."""
    return _native.libpq_path()


def one_libpq() -> bool:
    """Whether libjobq and the drivers have the same libpq."""
    return _libpq_of(len(sys.modules)) is not None


def sqlstate_of(error: BaseException) -> Optional[str]:
    """What the database said, through whatever wraps it: SQLAlchemy has it in `orig`, Django as the cause."""
    for inner in (error, getattr(error, "orig", None), error.__cause__):
        for name in ("sqlstate", "pgcode"):
            value = getattr(inner, name, None)
            if isinstance(value, str) and len(value) == 5:
                return value
    return None


def translate(error: Exception) -> NoReturn:
    """A driver's error as ours, with its own as the cause; one that the database has no part in stays as it is."""
    state = sqlstate_of(error)
    if state is None:
        raise error
    inner = getattr(error, "orig", None) or (error if hasattr(error, "diag") else error.__cause__) or error
    message = getattr(getattr(inner, "diag", None), "message_primary", None) or str(error)
    raise errors.of_sqlstate(state, message) from error


SAVEPOINT, ROLLBACK_TO, RELEASE = (f"{words} jobq_enqueue" for words in ("SAVEPOINT", "ROLLBACK TO SAVEPOINT", "RELEASE SAVEPOINT"))


def _by_cursor(cursor: Any, operation: Operation[T], in_transaction: bool) -> T:
    with closing(cursor):
        return _execute(cursor.execute, cursor.fetchall, operation, in_transaction)


def _execute(
    execute: Callable[..., Any], fetch: Callable[[], Sequence[Row]], operation: Operation[T], in_transaction: bool
) -> T:
    sql, params = operation.statement()
    guarded = operation.undo_on_error and in_transaction
    try:
        if guarded:
            execute(SAVEPOINT, ())
        try:
            execute(sql, params)
            rows = fetch()
        except BaseException:
            if guarded:
                with suppress(Exception):  # the connection may be lost or busy; what has happened first is what counts
                    execute(ROLLBACK_TO, ())
                    execute(RELEASE, ())
            raise
        if guarded:
            execute(RELEASE, ())
    except Exception as error:
        translate(error)
    return operation.read(rows)


# ---- psycopg 3 ----


def in_transaction_psycopg(connection: Any) -> bool:
    """Whether its next statement is in a transaction that goes on after it."""
    return not connection.autocommit or connection.pgconn.transaction_status != PQTRANS_IDLE


def _on_psycopg(connection: Any, operation: Operation[T]) -> T:
    pgconn = connection.pgconn
    if one_libpq() and not connection.closed and not operation.undo_on_error:
        with connection.lock:
            status = pgconn.transaction_status
            if pgconn.pipeline_status == 0 and (
                status == PQTRANS_INTRANS or (status == PQTRANS_IDLE and connection.autocommit)
            ):
                return operation.on_conn(pgconn.pgconn_ptr)
    from psycopg.rows import tuple_row

    return _by_cursor(connection.cursor(row_factory=tuple_row), operation, in_transaction_psycopg(connection))


# ---- psycopg2 ----


def _on_psycopg2(connection: Any, operation: Operation[T]) -> T:
    from psycopg2.extensions import cursor

    in_transaction = not connection.autocommit or connection.info.transaction_status != PQTRANS_IDLE
    return _by_cursor(connection.cursor(cursor_factory=cursor), operation, in_transaction)


# ---- SQLAlchemy ----


def _on_sqlalchemy(connection: Any, operation: Operation[T]) -> T:
    from sqlalchemy.engine import Connection

    if not isinstance(connection, Connection):  # a Session, or a scoped_session
        connection = connection.connection()
    if connection.dialect.name != "postgresql":
        raise errors.InvalidError(f"connection must be to PostgreSQL, this one's dialect is {connection.dialect.name}")
    if not connection.in_transaction() and not getattr(connection, "_is_future", True):
        raise errors.StateError(
            "the SQLAlchemy connection is in no transaction, and would lose the job: begin one with connection.begin()"
        )
    result: Any = None

    def execute(sql: str, params: Sequence[Any]) -> None:
        nonlocal result
        if connection.dialect.paramstyle not in ("pyformat", "format"):
            sql = _numbered(sql, connection.dialect.paramstyle)
        result = connection.exec_driver_sql(sql, tuple(params))

    def fetch() -> Sequence[Row]:
        rows: Sequence[Row] = result.fetchall()
        return rows

    autocommit = getattr(connection.connection.dbapi_connection, "autocommit", False)  # psycopg's and psycopg2's
    return _execute(execute, fetch, operation, not autocommit)


def _numbered(sql: str, paramstyle: str) -> str:
    """The statement for drivers, such as asyncpg, that count their parameters."""
    if not paramstyle.startswith("numeric"):
        raise errors.InvalidError(f"the connection's driver has the paramstyle {paramstyle}; format, pyformat and numeric do")
    mark = "$" if paramstyle == "numeric_dollar" else ":"
    parts = sql.split("%s")
    return "".join(part + (f"{mark}{i}" if i < len(parts) else "") for i, part in enumerate(parts, 1))


# ---- Django ----


def _on_django(connection: Any, operation: Operation[T]) -> T:
    """By its own cursor, which knows of debugging, time zones and broken connections what its users expect."""
    if connection.vendor != "postgresql":
        raise errors.InvalidError(f"connection must be to PostgreSQL, this one is to {connection.vendor}")
    return _by_cursor(connection.cursor(), operation, connection.in_atomic_block or not connection.get_autocommit())


_ROADS = {
    "psycopg": _on_psycopg,
    "psycopg2": _on_psycopg2,
    "sqlalchemy": _on_sqlalchemy,
    "django": _on_django,
}


def run_on(connection: Any, operation: Operation[T]) -> T:
    """Runs it in the application's transaction."""
    kind = kind_of(connection)
    road = _ROADS.get(kind)
    if road is None:
        more = "; for an asynchronous connection there is jobq.aio" if kind.endswith("async") else ""
        raise errors.InvalidError(f"connection must be {_KINDS}; got {what_it_is(connection)}{more}")
    return road(connection, operation)


# ---- the address alone ----


def _driver_connection(connection: Any) -> Any:
    """psycopg's own connection inside of what SQLAlchemy and Django have, in a transaction of theirs."""
    whose = kind_of(connection)
    if whose == "sqlalchemy":
        from sqlalchemy.engine import Connection

        if not isinstance(connection, Connection):
            connection = connection.connection()
        connection.exec_driver_sql("SELECT 1")  # theirs begins, too
        return connection.connection.driver_connection
    if whose == "django":
        connection.ensure_connection()
        return connection.connection
    return connection


def address_of(connection: Any) -> int:
    """The PGconn of an application's connection, in its transaction: for what libjobq alone can do (jobq.testing). Its user
    sees to it that nobody else uses the connection meanwhile."""
    if kind_of(connection) not in _ROADS:
        raise errors.InvalidError(f"connection must be {_KINDS}; got {what_it_is(connection)}")
    if not one_libpq():
        raise errors.StateError(
            "this process has two libpqs, libjobq's and the driver's, so this cannot be done on the driver's connection;"
            " a driver that uses the system's libpq (Debian's, or psycopg[c]) can"
        )
    inner = _driver_connection(connection)
    if not getattr(inner, "autocommit", False):
        with closing(inner.cursor()) as cursor:
            cursor.execute("SELECT 1")  # sends BEGIN, if it has not been sent
    address: Optional[int] = inner.pgconn.pgconn_ptr if kind_of(inner) == "psycopg" else inner.pgconn_ptr
    if address is None:
        raise errors.StateError("the connection is closed")
    return address
