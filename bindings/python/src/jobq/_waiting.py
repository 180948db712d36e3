"""Waiting for a job's end, in a thread that may have other things to hear of."""

from __future__ import annotations

import re
import threading
import time
from typing import Callable

from ._native import lib
from ._operations import take_info
from .errors import ConnectionLostError, NotFoundError, TimedOutError
from .model import JobInfo

#: libjobq waits for so long at a time, and longer where the database does not answer within that.
_SLICE_MS, _LONGEST_SLICE_MS = 1000, 30000


def _nothing() -> None:
    pass


#: Called between the slices. While a function with a soft limit runs in the main thread it raises SoftTimeout when the limit is
#: over (:mod:`jobq._soft`).
look: Callable[[], None] = _nothing


class _Here(threading.local):
    #: Whether a function with a soft limit runs in this thread. Then the interpreter raises SoftTimeout between calls of C.
    is_limited = False


here = _Here()


def _shown(ms: int) -> str:
    """A duration as libjobq shows it in a message."""
    for unit_ms, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s")):
        if ms > 0 and ms % unit_ms == 0:
            return f"{ms // unit_ms} {unit}"
    return f"{ms} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


def wait_for(client: int, number: int, timeout_ms: int) -> JobInfo:
    """jobq_client_wait. Signals are heard between calls of C, by the main thread alone: it waits a second at a time, so that
    Ctrl-C and a soft limit end it."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main and not here.is_limited:
        return take_info(lib.jobq_client_wait, client, number, timeout_ms)
    ends = None if timeout_ms < 0 else time.monotonic() + timeout_ms / 1000
    slice_ms, seen = _SLICE_MS, False
    while True:
        left_ms = None if ends is None else max(0, round((ends - time.monotonic()) * 1000))
        is_last = left_ms is not None and left_ms <= slice_ms
        try:
            return take_info(lib.jobq_client_wait, client, number, left_ms if is_last else slice_ms)
        except TimedOutError as error:
            seen = True
            if is_last:
                raise TimedOutError(re.sub(r"after \S+ \S+$", f"after {_shown(timeout_ms)}", str(error))) from None
        except NotFoundError:
            if not seen:
                raise
            raise NotFoundError(
                f"job {number} is gone: it completed in a queue that keeps nothing, or was deleted"
            ) from None
        except ConnectionLostError:
            if is_last:
                raise
            slice_ms = min(2 * slice_ms, _LONGEST_SLICE_MS)
        if is_main:
            look()
