"""Handlers that complete their job in a transaction of their own. DATABASE: where."""

import os
from typing import Any, Dict

import psycopg

import jobq
import jobq.aio

DATABASE = os.environ.get("DATABASE", "")


def write(conn: Any, job: int) -> None:
    conn.execute("INSERT INTO public.effects VALUES (%s)", [job])


@jobq.worker("charge")
def charge(context: jobq.Context, then: str = "return") -> Dict[str, Any]:
    with psycopg.connect(DATABASE) as conn:
        write(conn, context.job.id)
        context.complete(conn, {"by": "its transaction"})
        if then == "roll back":
            conn.rollback()
    if then == "raise":
        raise RuntimeError("after the commit")
    return {"by": "the function"}


@jobq.worker("charge_async")
async def charge_async(context: jobq.Context) -> None:
    async with await psycopg.AsyncConnection.connect(DATABASE) as conn:
        await conn.execute("INSERT INTO public.effects VALUES (%s)", [context.job.id])
        await jobq.aio.complete(conn, {"by": "its transaction"})


@jobq.worker("wrong")
def wrong(context: jobq.Context) -> str:
    with psycopg.connect(DATABASE) as conn:
        try:
            context.complete(conn, object())
        except jobq.JobqError as error:
            return f"{type(error).__name__}: {error}"
    return "was taken"
