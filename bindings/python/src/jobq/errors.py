"""What can go wrong, as exceptions. Each is a :class:`JobqError`; the names follow libjobq's codes."""

from __future__ import annotations

from typing import Dict, Type


class JobqError(Exception):
    """The base of all. ``sqlstate`` is the database's code, or "" when it was not the cause."""

    sqlstate: str = ""

    def __init__(self, message: str, sqlstate: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class LibraryError(JobqError, ImportError):
    """libjobq cannot be loaded, or is of another version."""

    def __init__(self, message: str) -> None:
        JobqError.__init__(self, message)


class InvalidError(JobqError, ValueError):
    """An argument is wrong; the message names it and what is allowed."""


class ResultError(InvalidError):
    """What a function returned cannot be kept as its job's result. The work is done: the job is completed without it."""


class ConnectionLostError(JobqError, ConnectionError):
    """The database is away, or the connection broke. Where no connection could be made, the call did not take place. Where it
    broke during the call, it is unknown whether the call took place."""


class DatabaseError(JobqError):
    """The database refused; see ``sqlstate``."""


class NotFoundError(JobqError, LookupError):
    """No job has that id."""


class StateError(JobqError):
    """The job or the transaction is in a state that does not allow it."""


class ProtocolError(JobqError):
    """jobqd sent what is no frame of the worker protocol."""


class GoneError(JobqError, OSError):
    """A read, write or system call failed; in a worker: jobqd is gone."""


class SchemaError(JobqError):
    """The jobq schema is missing, older or newer than libjobq knows: ``jobqd migrate status`` tells."""


class ConflictError(JobqError):
    """The job is there already, and that was to be an error (``on_conflict="raise"``)."""


class TimedOutError(JobqError, TimeoutError):
    """The time was over first."""


EIO = -8

#: libjobq's code (jobq/error.h) to our exception. JOBQ_ENOMEM is a MemoryError.
_BY_CODE: Dict[int, Type[JobqError]] = {
    -1: InvalidError,
    -3: ConnectionLostError,
    -4: DatabaseError,
    -5: NotFoundError,
    -6: StateError,
    -7: ProtocolError,
    -8: GoneError,
    -9: SchemaError,
    -10: ConflictError,
    -11: TimedOutError,
}

#: SQLSTATEs that mean more than "the database refused", as in libjobq/sql.c; the longest prefix first.
_BY_SQLSTATE: Dict[str, Type[JobqError]] = {
    "23514": InvalidError,
    "P0002": NotFoundError,
    "55000": StateError,
    "3F000": SchemaError,
    "42P01": SchemaError,
    "42883": SchemaError,
    "42703": SchemaError,
    "23505": ConflictError,
    "57P0": ConnectionLostError,
    "08": ConnectionLostError,
    "22": InvalidError,
    "25": StateError,
}


def of_code(code: int, message: str, sqlstate: str = "") -> Exception:
    """The exception for what a function of libjobq returned."""
    if code == -2:
        return MemoryError(message)
    return _BY_CODE.get(code, JobqError)(message, sqlstate)


def of_sqlstate(sqlstate: str, message: str) -> JobqError:
    """The exception for what the database said through a driver."""
    for prefix, kind in _BY_SQLSTATE.items():
        if sqlstate.startswith(prefix):
            return kind(message, sqlstate)
    return DatabaseError(message, sqlstate)
