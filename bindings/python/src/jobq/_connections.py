"""The application's own connections: psycopg 3, psycopg2, SQLAlchemy's and Django's, each with what it needs so that a job
commits or vanishes with the application's transaction.

A connection of psycopg is used by its address where that is safe: it must be in a transaction already (a driver sends its
BEGIN with the first statement, which libjobq would not do), and this process must have one libpq alone (wheels that bring
their own would take our pointer for something else). Otherwise, and for everything else, the SQL function is called through
a cursor of theirs.
"""

from __future__ import annotations

import sys
from contextlib import closing
from functools import lru_cache
from typing import Any, Callable, NoReturn, Optional, Sequence, TypeVar

from . import _native, errors
from ._operations import Operation, Row

T = TypeVar("T")

_KINDS = (
    "a psycopg or psycopg2 connection, a SQLAlchemy Session or Connection, or a Django connection"
)

PQTRANS_IDLE, PQTRANS_INTRANS = 0, 2


def module_of(connection: Any) -> str:
    """Whose class it is: of the first of its bases that one of the drivers has made."""
    for base in type(connection).__mro__:
        top = base.__module__.split(".")[0]
        if top in ("psycopg", "psycopg2", "sqlalchemy", "django"):
            return top
    return ""


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


def _by_cursor(cursor: Any, operation: Operation[T]) -> T:
    with closing(cursor):
        return _execute(cursor.execute, cursor.fetchall, operation)


def _execute(execute: Callable[..., Any], fetch: Callable[[], Sequence[Row]], operation: Operation[T]) -> T:
    sql, params = operation.statement()
    try:
        execute(sql, params)
        rows = fetch()
    except Exception as error:
        translate(error)
    return operation.read(rows)


# ---- psycopg 3 ----


def _on_psycopg(connection: Any, operation: Operation[T]) -> T:
    pgconn = connection.pgconn
    if one_libpq() and not connection.closed:
        with connection.lock:
            status = pgconn.transaction_status
            if pgconn.pipeline_status == 0 and (
                status == PQTRANS_INTRANS or (status == PQTRANS_IDLE and connection.autocommit)
            ):
                return operation.on_conn(pgconn.pgconn_ptr)
    from psycopg.rows import tuple_row

    return _by_cursor(connection.cursor(row_factory=tuple_row), operation)


# ---- psycopg2 ----


def _on_psycopg2(connection: Any, operation: Operation[T]) -> T:
    from psycopg2.extensions import cursor

    return _by_cursor(connection.cursor(cursor_factory=cursor), operation)


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

    return _execute(execute, fetch, operation)


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
    return _by_cursor(connection.cursor(), operation)


_ROADS = {
    "psycopg": _on_psycopg,
    "psycopg2": _on_psycopg2,
    "sqlalchemy": _on_sqlalchemy,
    "django": _on_django,
}


def run_on(connection: Any, operation: Operation[T]) -> T:
    """Runs it in the application's transaction."""
    road = _ROADS.get(module_of(connection))
    if road is None or (hasattr(connection, "__aenter__") and not hasattr(connection, "__enter__")):
        more = "; for an asynchronous connection there is jobq.aio" if hasattr(connection, "__aenter__") else ""
        raise errors.InvalidError(
            f"connection must be {_KINDS}; got a {type(connection).__module__}.{type(connection).__qualname__}{more}"
        )
    return road(connection, operation)


# ---- the address alone ----


def _driver_connection(connection: Any) -> Any:
    """psycopg's own connection inside of what SQLAlchemy and Django have, in a transaction of theirs."""
    whose = module_of(connection)
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
    if module_of(connection) not in _ROADS:
        raise errors.InvalidError(
            f"connection must be {_KINDS}; got a {type(connection).__module__}.{type(connection).__qualname__}"
        )
    if not one_libpq():
        raise errors.StateError(
            "this process has two libpqs, libjobq's and the driver's, so this cannot be done on the driver's connection;"
            " a driver that uses the system's libpq (Debian's, or psycopg[c]) can"
        )
    inner = _driver_connection(connection)
    if not getattr(inner, "autocommit", False):
        with closing(inner.cursor()) as cursor:
            cursor.execute("SELECT 1")  # sends BEGIN, if it has not been sent
    address: Optional[int] = inner.pgconn.pgconn_ptr if module_of(inner) == "psycopg" else inner.pgconn_ptr
    if address is None:
        raise errors.StateError("the connection is closed")
    return address
