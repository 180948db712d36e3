"""A client's own connections: jobq_clients, one thread at a time for each, handed from thread to thread."""

from __future__ import annotations

import os
import re
import threading
import weakref
from contextlib import contextmanager
from ctypes import byref, c_void_p, sizeof
from typing import Any, Callable, Iterator, List, Optional, Union

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


class Pool:
    """Opens connections as they are wanted, `most` at a time; a thread that finds none waits for one. `_open` counts those
    that are idle and those in use for which the limit counts.

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
        self._changed = threading.Condition()
        self._idle: List[int] = []
        self._open = 0
        self._closed = False

    def _wanted(self) -> Optional[bytes]:
        given = self._source() if callable(self._source) else self._source
        return conninfo(given, "dsn") if given is not None else None

    def _connect(self, database: Optional[bytes]) -> int:
        options = _native.ClientOptions(sizeof(_native.ClientOptions), database, self._schema)
        handle, err = c_void_p(), _native.Error()
        try:
            check(lib.jobq_client_open(byref(options), byref(handle), byref(err)), err)
        except errors.ConnectionLostError as error:
            if database is not None:
                raise
            raise errors.ConnectionLostError(f"{str(error).rstrip()} ({self.no_database}, so libpq's default was tried)") from None
        assert handle.value is not None
        return handle.value

    def _take(self, counts: bool) -> Optional[int]:
        """An idle one; None: a new one may be opened. It counts as open from now on, or no longer."""
        with self._changed:
            while True:
                if self._closed:
                    raise errors.StateError("the client is closed")
                if self._idle:
                    self._open -= not counts
                    return self._idle.pop()
                if not counts:
                    return None
                if self._open < self._most:
                    self._open += 1
                    return None
                self._changed.wait()

    def _give_back(self, handle: Optional[int], counts: bool, is_good: bool) -> None:
        with self._changed:
            self._open -= counts
            keep = handle is not None and is_good and not self._closed and self._open < self._most
            if keep and handle is not None:
                self._open += 1
                self._idle.append(handle)
            self._changed.notify()
        if not keep and handle is not None:
            lib.jobq_client_close(handle)

    @contextmanager
    def connection(self, counts: bool = True) -> Iterator[int]:
        """A jobq_client, by its address. `counts`: the limit does; not for a call that may take long."""
        pid = os.getpid()
        handle = self._take(counts)
        is_usual = True
        try:
            database = self._wanted() if callable(self._source) else self._database
            is_usual = database == self._database
            if handle is not None and not is_usual:
                lib.jobq_client_close(handle)
                handle = None
            if handle is None:
                handle = self._connect(database)
            yield handle
        finally:
            if os.getpid() == pid:
                self._give_back(handle, counts, is_usual)

    def close(self) -> None:
        """Closes what is idle; what is in use closes when it comes back."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            self._open -= len(idle)
            self._changed.notify_all()
        for handle in idle:
            lib.jobq_client_close(handle)

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
