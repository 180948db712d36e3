"""Functions of which one process runs many at a time."""

import asyncio
import multiprocessing
import os
import threading
import time
from typing import Dict, List

import jobq

_there: List[int] = []
_most = 0
_all_there: "Dict[int, asyncio.Event]" = {}


@jobq.worker("meet")
async def meet(context: jobq.Context, n: int, payload: str = "") -> int:
    """Ends when n of them run at the same time."""
    event = _all_there.setdefault(n, asyncio.Event())
    _there.append(context.job.id)
    try:
        if len(_there) == n:
            event.set()
        await event.wait()
        assert jobq.current().job.id == context.job.id
        return len(set(_there))
    finally:
        await asyncio.sleep(0)


@jobq.worker("peak")
async def peak(context: jobq.Context, n: int) -> int:
    """The most that have run at the same time, once n did."""
    global _most
    event = _all_there.setdefault(-n, asyncio.Event())
    _there.append(context.job.id)
    _most = max(_most, len(_there))
    if len(_there) >= n:
        event.set()
    await event.wait()
    await asyncio.sleep(0.01)
    _there.remove(context.job.id)
    return _most


@jobq.worker("stay")
async def stay(context: jobq.Context) -> None:
    """Until it is told to stop."""
    context.progress(0.5, "stays")
    await asyncio.sleep(3600)


@jobq.worker("obstinate")
async def obstinate(context: jobq.Context) -> None:
    """Even then it goes on."""
    context.progress(0.5, "stays")
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass


@jobq.worker("abort_beside")
async def abort_beside(others: int) -> None:
    while len(asyncio.all_tasks()) < others + 2:
        await asyncio.sleep(0.01)
    os.abort()


@jobq.worker("limited", concurrency=2)
async def limited() -> int:
    global _most
    _there.append(0)
    _most = max(_most, len(_there))
    await asyncio.sleep(0.02)
    _there.pop()
    return _most


_gate = threading.Barrier(3)


@jobq.worker("threads", concurrency=3)
def threads(context: jobq.Context) -> str:
    """Ends when three threads are here."""
    _gate.wait(60)
    assert jobq.current().job.id == context.job.id
    context.progress(1)
    return threading.current_thread().name


@jobq.worker("one_thread")
def one_thread() -> int:
    """Plain functions run one at a time, unless they say more."""
    _there.append(1)
    time.sleep(0.02)
    n = len(_there)
    _there.pop()
    return n


@jobq.worker("until_stopped")
def until_stopped(context: jobq.Context) -> None:
    context.progress(0.5)
    while not context.should_stop():
        time.sleep(0.01)
    raise jobq.Cancel(f"saw {context.should_stop().name}")


@jobq.worker("raises_cancelled")
async def raises_cancelled() -> None:
    raise asyncio.CancelledError("of its own")


@jobq.worker("leave")
async def leave() -> None:
    raise SystemExit(3)


@jobq.worker("nap")
async def nap(context: jobq.Context) -> None:
    """Until the worker is to end."""
    context.progress(0.5)
    while context.should_stop() is not jobq.Stop.DRAIN:
        await asyncio.sleep(0.01)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


@jobq.worker("unprintable")
def unprintable() -> None:
    raise Unprintable()


@jobq.worker("stop_iteration")
def stop_iteration() -> None:
    raise StopIteration(5)


@jobq.worker("processes")
def processes() -> List[int]:
    with multiprocessing.Pool(2) as pool:
        return pool.map(abs, [-1, -2])


@jobq.worker("breaks_the_loop")
async def breaks_the_loop() -> None:
    os.closerange(3, 50)
