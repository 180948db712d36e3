"""The soft time limit: an exception in a function that has run too long. Where the function runs decides how it gets there."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Callable, Coroutine, Iterator, List, Optional

from . import _waiting
from ._forks import Guard
from .handlers import Handler
from .outcome import SoftTimeout

_HERE = os.path.dirname(os.path.abspath(__file__))

#: How long the exception is put off while the interpreter is in jobq's own code.
_AGAIN_S = 0.01


def _is_ours(frame: FrameType) -> bool:
    return os.path.dirname(os.path.abspath(frame.f_code.co_filename)) == _HERE


def _in_function(frame: Optional[FrameType]) -> bool:
    """Whether the interpreter is in the job's function, or in what that calls, and not in jobq."""
    if frame is None or _is_ours(frame):
        return False
    while frame is not None and (not _is_ours(frame) or frame.f_code is Handler.__call__.__code__):
        frame = frame.f_back  # a decorated function may be called by another
    return frame is not None and frame.f_code is in_main_thread.__code__


def _caller(frame: Optional[FrameType]) -> Optional[FrameType]:
    """What has called jobq."""
    while frame is not None and _is_ours(frame):
        frame = frame.f_back
    return frame


def in_main_thread(function: Callable[[], Any], after_s: float) -> Any:
    """Calls the function; SIGALRM interrupts it. A timer of the application's own is put back, and its time has gone on."""
    over = is_late = False

    def rings(number: int, frame: Optional[FrameType]) -> None:
        nonlocal is_late
        if over:
            return
        if not _in_function(frame):
            is_late = True
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
            return
        raise SoftTimeout()

    def look() -> None:
        """client.wait is jobq's own code for as long as it waits: it asks between its steps."""
        nonlocal over
        if is_late and not over and _in_function(_caller(sys._getframe(1))):
            over = True
            raise SoftTimeout()

    outer = _waiting.look
    before = signal.signal(signal.SIGALRM, rings)
    left, interval = signal.setitimer(signal.ITIMER_REAL, after_s)
    began = time.monotonic()
    try:
        _waiting.look = look
        return function()
    finally:
        over = True
        _waiting.look = outer
        signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), _AGAIN_S) if left else 0, interval)
        signal.signal(signal.SIGALRM, before if before is not None else signal.SIG_DFL)


@contextlib.contextmanager
def _raised_in_this_thread(after_s: float) -> Iterator[None]:
    """The interpreter raises it between two instructions of this thread; a call into C ends first."""
    thread, lock, over, fired = threading.get_ident(), threading.Lock(), False, False

    def ring() -> None:
        nonlocal fired
        with lock:
            if not over:
                fired = True
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(SoftTimeout))

    timer = threading.Timer(after_s, ring)
    timer.daemon = True
    timer.start()
    outer = _waiting.here.is_limited
    try:
        _waiting.here.is_limited = True
        yield
    finally:
        timer.cancel()
        _waiting.here.is_limited = outer
        with lock:
            over = True
            if fired:  # and perhaps not raised yet
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)


def in_this_thread(function: Callable[[], Any], after_s: float) -> Any:
    """Calls the function, in any thread. What it returned counts, also where the exception came an instruction later: it is
    kept by C, without one in between."""
    returned: List[Any] = []
    try:
        with _raised_in_this_thread(after_s):
            returned.extend(itertools.starmap(function, ((),)))
    except SoftTimeout:
        if not returned:
            raise
    if not returned:
        raise RuntimeError("the function raised StopIteration")
    return returned[0]


async def of_coroutine(coroutine: "Coroutine[Any, Any, Any]", after_s: float) -> Any:
    """Awaits it, in a task of its own, which is cancelled: CancelledError inside, SoftTimeout outside."""
    fired = False
    where: Optional[TracebackType] = None
    loop = asyncio.get_running_loop()

    async def guarded() -> Any:
        nonlocal where
        try:
            with Guard():
                return await coroutine
        except asyncio.CancelledError as cancelled:
            where = cancelled.__traceback__
            raise

    task = loop.create_task(guarded())

    def ring() -> None:
        nonlocal fired
        if not task.done():
            fired = True
            task.cancel()

    timer = loop.call_later(after_s, ring)
    try:
        return await task
    except asyncio.CancelledError:
        if fired and task.cancelled():
            raise SoftTimeout().with_traceback(where) from None
        raise
    finally:
        timer.cancel()
        if task.done():
            coroutine.close()  # where the task was cancelled before it began


def left(after_s: Optional[float], began: float) -> Optional[float]:
    """What is left of a limit that has counted since `began`."""
    return None if after_s is None else max(after_s - (time.monotonic() - began), 0)


def limited(coroutine: "Coroutine[Any, Any, Any]", after_s: Optional[float]) -> "Coroutine[Any, Any, Any]":
    """The coroutine with its limit, if it has one."""
    return coroutine if after_s is None else of_coroutine(coroutine, after_s)


def call(function: Callable[[], Any], after_s: Optional[float]) -> Any:
    """Calls a plain function with its limit, if it has one."""
    if after_s is None:
        return function()
    if threading.current_thread() is threading.main_thread():
        return in_main_thread(function, after_s)
    return in_this_thread(function, after_s)
