"""An application's jobs: each way in which one can end."""

import asyncio
import ctypes
import datetime
import decimal
import enum
import logging
import os
import pathlib
import sys
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any, Dict, List, Literal, NamedTuple, Optional, Set, Tuple, TypedDict, Union

import jobq

log = logging.getLogger("app")


@jobq.worker("noop")
def noop() -> None:
    """Nothing."""


@jobq.worker("echo", queue="default", max_attempts=7, timeout=120, tags=["py"])
def echo(**members: Any) -> Dict[str, Any]:
    return members


@jobq.worker("tell")
def tell(context: jobq.Context, extra: int = 5) -> Dict[str, Any]:
    assert jobq.current() is context
    job = context.job
    timeout = job.timeout.total_seconds() if job.timeout else None
    return {"id": job.id, "attempt": job.attempt, "max_attempts": job.max_attempts, "queue": job.queue, "kind": job.kind,
            "args": job.args, "meta": job.meta, "timeout": timeout, "last": job.last_attempt, "extra": extra,
            "stop": context.should_stop(), "falsy": not context.should_stop()}


# ---- arguments ----

class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: int
    y: decimal.Decimal = decimal.Decimal(0)


class Size(NamedTuple):
    width: int
    height: int


class Options(TypedDict, total=False):
    quality: int


@jobq.worker("typed")
def typed(at: datetime.datetime, day: datetime.date, took: datetime.timedelta, price: decimal.Decimal, id: uuid.UUID,
          colour: Colour, point: Point, size: Size, options: Options, path: pathlib.Path, points: List[Point],
          names: Set[str], pair: Tuple[int, str], by_number: Dict[int, float], mode: Literal["fast", "slow"],
          maybe: Optional[int] = None, either: Union[int, str] = 1, anything: Any = None) -> str:
    return repr((at, day, took, price, id, colour, point, size, options, path, points, names, pair, by_number, mode,
                 maybe, either, anything))


# ---- ends ----

@jobq.worker("raise", backoff=60)
def raises(text: str = "boom") -> None:
    inner(text)


def inner(text: str) -> None:
    raise ValueError(text)


@jobq.worker("raise_by_attempt", backoff=lambda attempt: attempt * 100)
def raise_by_attempt() -> None:
    raise ValueError("again")


@jobq.worker("raise_by_list", backoff=[10, datetime.timedelta(seconds=20)])
def raise_by_list() -> None:
    raise ValueError("again")


@jobq.worker("raise_bad_backoff", backoff=lambda attempt: "soon")  # type: ignore[arg-type,return-value]
def raise_bad_backoff() -> None:
    raise ValueError("again")


@jobq.worker("snooze")
def snooze(seconds: float = 60) -> None:
    raise jobq.Snooze(seconds)


@jobq.worker("cancel")
def cancel(why: Optional[str] = None) -> None:
    raise jobq.Cancel(why)


@jobq.worker("discard")
def discard(why: Optional[str] = None) -> None:
    raise jobq.Discard(why)


@jobq.worker("retry")
def retry(after: Optional[float] = None, reason: Optional[str] = None, cause: bool = False) -> None:
    try:
        if cause:
            inner("the cause")
    except ValueError as error:
        raise jobq.Retry(after, reason) from error
    raise jobq.Retry(after, reason)


@jobq.worker("bad_result")
def bad_result() -> object:
    return object()


@jobq.worker("returns_discard")
def returns_discard() -> object:
    return jobq.Discard("x")


@jobq.worker("exit")
def exit(code: Any = 3) -> None:
    print("last words")
    sys.exit(code)


@jobq.worker("abort")
def abort() -> None:
    os.abort()


@jobq.worker("segfault")
def segfault() -> None:
    ctypes.string_at(0)


@jobq.worker("spin_in_c")
def spin_in_c() -> None:
    """A loop in C that never lets go of the GIL, and looks at no signal: this regular expression takes 2^60 steps."""
    import re
    re.match(r"(a+)+$", "a" * 60 + "b")


@jobq.worker("spin")
def spin() -> None:
    while True:
        pass


@jobq.worker("grow")
def grow() -> None:
    hold = []
    while True:
        hold.append(bytearray(10_000_000))
        time.sleep(0.001)


@jobq.worker("thread_dies")
def thread_dies() -> str:
    """What another thread raises is no concern of the job's."""
    def fail() -> None:
        raise ValueError("in a thread")
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    return "survived"


@jobq.worker("interrupt")
def interrupt() -> None:
    raise KeyboardInterrupt


# ---- while it runs ----

@jobq.worker("until_stopped")
def until_stopped(context: jobq.Context, file: str) -> str:
    pathlib.Path(file).write_text("started")
    context.progress(0.25, "waiting")
    while not context.should_stop():
        time.sleep(0.01)
    if context.should_stop() == jobq.Stop.DRAIN:
        raise jobq.Snooze(0)
    pathlib.Path(file).write_text(context.should_stop().name)
    raise jobq.Cancel(f"stopped by {context.should_stop().name}")


@jobq.worker("log")
def logs() -> None:
    log.warning("from a function")
    print("from print")
    print("to stderr", file=sys.stderr)


_kept: List[jobq.Context] = []


@jobq.worker("keep_context")
def keep_context(context: jobq.Context) -> str:
    """A context counts until its function has returned."""
    said = "first"
    if _kept:
        said = _kept[0].should_stop().name
        try:
            _kept[0].progress(1)
        except jobq.StateError as error:
            said += f", {error}"
    _kept.append(context)
    return said


# ---- coroutines ----

_loops = set()


@jobq.worker("coroutine")
async def coroutine(context: jobq.Context, n: int) -> Dict[str, Any]:
    await asyncio.sleep(0.001)
    _loops.add(id(asyncio.get_running_loop()))
    return {"n": n, "id": jobq.current().job.id, "same": context is jobq.current(), "loops": len(_loops)}


@jobq.worker("coroutine_raises")
async def coroutine_raises() -> None:
    await asyncio.sleep(0)
    inner("in a coroutine")


# ---- enqueueing from a job ----

@jobq.worker("parent")
def parent(n: int) -> int:
    return noop.enqueue().id


# ---- preload ----

LOADED_BY = os.getpid()


@jobq.worker("preloaded")
def preloaded() -> Dict[str, Any]:
    """What a worker that was forked must have of its own."""
    import random
    started = threading.Event()
    thread = threading.Thread(target=started.set)
    thread.start()
    thread.join()
    return {"loaded_by": LOADED_BY, "pid": os.getpid(), "random": random.random(), "thread": started.is_set(),
            "threads": threading.active_count(), "child": noop.enqueue().id}
