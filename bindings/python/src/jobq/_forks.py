"""A process that a job's function has forked and that comes out of it: the worker's loop is not its own, so it ends there."""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType
from typing import Optional, Type


def leave_child(error: Optional[BaseException] = None) -> None:
    """Ends a process that a function has forked and that has come out of it: the worker's loop is not its own."""
    code = 70
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    elif error is not None:
        traceback.print_exception(type(error), error, error.__traceback__, file=sys.stderr)
    if not isinstance(error, SystemExit):
        print("jobq: a process that a job's function forked has come out of the function, and ends here; end it with "
              "os._exit()", file=sys.stderr)  # fmt: skip
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass
    os._exit(code & 0xFF)


class Guard:
    """Around a job's function. A child ends here: neither the middleware nor the worker are its own to leave."""

    def __enter__(self) -> None:
        self._pid = os.getpid()

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if os.getpid() != self._pid:
            leave_child(error)
