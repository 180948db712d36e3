"""Functions of which one job runs at a time, beside one that lets the process take twenty."""

import asyncio
import time

import jobq

RUNS_S = 0.5


@jobq.worker("plain")
def plain() -> None:
    time.sleep(RUNS_S)


@jobq.worker("limited", concurrency=1)
async def limited() -> None:
    await asyncio.sleep(RUNS_S)


@jobq.worker("fetch", concurrency=20)
async def fetch() -> None:
    pass
