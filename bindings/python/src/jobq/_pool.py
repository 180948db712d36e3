"""A client's own connections: jobq_clients, one thread at a time for each, handed from thread to thread."""

from __future__ import annotations

import itertools
import os
import re
import threading
import weakref
from contextlib import contextmanager
from ctypes import byref, c_void_p, sizeof
from typing import Any, Callable, Iterator, List, Optional, Set, Union

from . import _native, errors
from ._native import lib
from ._operations import check, schema_name, text
from .errors import InvalidError

#: A connection string, a function that returns one, or None for libpq's environment.
Database = Union[str, Callable[[], Optional[str]], None]


_URI, _SCHEMES = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://"), ("postgresql://", "postgres://")


def conninfo(given: Any, what: str) -> bytes:
    """A connection string as C has it. InvalidError: libpq would take it for the name of a database on this host, and it is
    nearly a URI. jobqd's command line refuses the same."""
    encoded = text(given, what)
    scheme = _URI.match(given)
    refused = scheme[0] not in _SCHEMES if scheme else "=" not in given and any(c in given for c in "/:@")
    if refused:
        before, at, after = given.rpartition("@")  # what stands before it may be a password
        shown = f"****@{after}" if at else given
        raise InvalidError(
            f"{what}: \"{shown:.100}\" is neither a URI such as postgresql://USER@HOST/NAME nor a keyword string such as "
            f"host=HOST dbname=NAME"
        )
    return encoded


_pools: "weakref.WeakSet[Pool]" = weakref.WeakSet()


class _Use:
    """One use of a connection, and the connection while it has one.

    The exception of a signal handler, or of a soft limit in a thread, may come between any two instructions of Python. So no
    connection is ever in a local variable alone, where it would be lost: it goes from list to list within one call of C."""

    def __init__(self) -> None:
        self.held: List[c_void_p] = []

    def close(self) -> None:
        """Closes what it has."""
        codes: List[None] = []
        codes.extend(map(lib.jobq_client_close, _popped(self.held)))

    @property
    def address(self) -> int:
        """The jobq_client."""
        address = self.held[0].value
        assert address is not None
        return address


def _popped(handles: List[c_void_p]) -> "Iterator[c_void_p]":
    """The last one, taken out of the list when the iterator is asked."""
    return itertools.starmap(handles.pop, ((),))


class Pool:
    """Opens connections as they are wanted, `most` at a time; a thread that finds none waits for one. The limit counts those
    that are idle and those in use, but for uses that may take long.

    `database` is asked before each use where it is a function. Connections are kept for the next use only while it says what
    it said first: a test's database, whose name Django's test runner puts in the settings for a while, could not be dropped
    while one of ours is idle in it."""

    def __init__(self, database: Database, schema: Optional[str], most: int) -> None:
        schema_name(schema)
        self._source = database
        self._database = self._wanted()
        #: Why libpq's default is tried where no database is given, for the error where that fails.
        self.no_database = "no dsn was given"
        self._schema = schema.encode() if schema is not None else None
        self._most = most
        self._forget()
        _pools.add(self)

    def _forget(self) -> None:
        """Also in a child of fork(): the connections are the parent's, and not even closed here, which would end them for
        the parent, too."""
        # `with` a lock of C takes it in one step; `with` a Condition may be interrupted when it has the lock, and keep it.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._idle: List[c_void_p] = []
        self._counted: Set[_Use] = set()
        self._closed = False

    def _wanted(self) -> Optional[bytes]:
        given = self._source() if callable(self._source) else self._source
        return conninfo(given, "dsn") if given is not None else None

    def _connect(self, use: _Use, database: Optional[bytes]) -> None:
        options = _native.ClientOptions(sizeof(_native.ClientOptions), database, self._schema)
        handle, err, codes = c_void_p(), _native.Error(), []  # type: ignore[var-annotated]
        use.held.append(handle)  # C fills it in
        try:
            codes.extend(map(lib.jobq_client_open, (byref(options),), (byref(handle),), (byref(err),)))
            check(codes[0], err)
        except errors.ConnectionLostError as error:
            if database is not None:
                raise
            raise errors.ConnectionLostError(f"{str(error).rstrip()} ({self.no_database}, so libpq's default was tried)") from None

    def _has_room(self) -> bool:
        return len(self._idle) + len(self._counted) < self._most

    def _take(self, use: _Use, counts: bool) -> None:
        """Gives the use an idle one; none: a new one may be opened."""
        with self._lock:
            while True:
                if self._closed:
                    raise errors.StateError("the client is closed")
                if self._idle or not counts or self._has_room():
                    break
                self._changed.wait()
            if counts:
                self._counted.add(use)
            if self._idle:
                use.held.extend(_popped(self._idle))

    def _give_back(self, use: _Use, is_good: bool) -> None:
        """The use is over. May be called again where it was interrupted."""
        with self._lock:
            self._counted.discard(use)
            if use.held and use.held[0].value is not None and is_good and not self._closed and self._has_room():
                self._idle.extend(_popped(use.held))
            self._changed.notify()
        if use.held:
            use.close()

    @contextmanager
    def connection(self, counts: bool = True) -> Iterator[int]:
        """A jobq_client, by its address. `counts`: the limit does; not for a call that may take long."""
        pid, is_usual, use = os.getpid(), True, _Use()
        try:
            self._take(use, counts)
            database = self._wanted() if callable(self._source) else self._database
            is_usual = database == self._database
            if use.held and not is_usual:
                use.close()
            if not use.held:
                self._connect(use, database)
            yield use.address
        finally:
            try:
                if os.getpid() == pid:
                    self._give_back(use, is_usual)
            except BaseException:  # it was interrupted
                if os.getpid() == pid:
                    self._give_back(use, is_usual)
                raise

    def close(self) -> None:
        """Closes what is idle; what is in use closes when it comes back."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()
            idle = _Use()
            idle.held = self._idle
            while self._idle:
                idle.close()

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._closed


def _in_child() -> None:
    for pool in list(_pools):
        closed = pool.closed
        pool._forget()
        pool._closed = closed


os.register_at_fork(after_in_child=_in_child)
