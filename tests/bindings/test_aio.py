"""jobq.aio, on connections of its own and of the application's."""

import asyncio
import datetime
import os
import time

import psycopg
import pytest

import jobq
import jobq.aio
from jobq import testing

UTC = datetime.timezone.utc


def test_every_method(db):
    async def main():
        async with jobq.aio.Client(db.uri) as client:
            assert client.schema == "jobq"
            job = await client.enqueue("resize", {"n": 1}, queue="media", priority=3, unique_key="k", schedule_in=60)
            assert (await client.enqueue("resize", unique_key="k")).conflict == "ignored"
            info = await client.get(job)
            assert (info.args, info.queue, info.priority, info.state) == ({"n": 1}, "media", 3, "scheduled")
            assert await client.cancel(job) is True
            assert await client.retry(job) is True
            assert await client.delete(job) is True
            made = await client.enqueue_many([{"kind": "a"}, jobq.NewJob("b", {"user": 1}), jobq.NewJob("c")])
            assert [one.inserted for one in made] == [True] * 3
            assert await client.enqueue_many([]) == []
            assert (await client.enqueue_job(jobq.NewJob("d"))).inserted
            assert await client.cancel_many(kind="a") == 1
            assert await client.retry_many(kind="a") == 1
            assert await client.purge({"user": 1}) == 1
            assert await client.delete_many(all=True) == 3
            assert await client.pause("mail") and await client.resume("mail")
            assert await client.scale("mail", 3, node="n") and await client.scale("mail", None, node="n")
            with pytest.raises(jobq.NotFoundError):
                await client.get(job)
            with pytest.raises(jobq.InvalidError, match="priority"):
                await client.enqueue("a", priority=10)
    asyncio.run(main())


def test_the_loop_goes_on(db):
    """While a call waits for a lock, and while many tasks wait for jobs."""
    async def main():
        async with jobq.aio.Client(db.uri, max_connections=2) as client:
            job = await client.enqueue("a")
            with db.connect(autocommit=False) as locker:
                locker.execute("SELECT FROM jobq.jobs WHERE id OPERATOR(pg_catalog.=) %s FOR UPDATE", (job.id,))
                blocked = asyncio.ensure_future(client.cancel(job))
                for _ in range(200):
                    await asyncio.sleep(0)
                await client.enqueue("b")
                assert not blocked.done()
            assert await blocked is True
            other = await client.enqueue("c")
            waits = [asyncio.ensure_future(client.wait(other, 60)) for _ in range(20)]
            await client.enqueue("d")
            assert await client.cancel(other)
            assert {info.state for info in await asyncio.gather(*waits)} == {"cancelled"}
    asyncio.run(main())


def test_wait(db):
    async def main():
        async with jobq.aio.Client(db.uri) as client:
            job = await client.enqueue("a")
            began = time.monotonic()
            with pytest.raises(jobq.TimedOutError, match="is available after 0.2 s"):
                await client.wait(job, 0.2)
            assert time.monotonic() - began >= 0.2
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.wait(job), 0.05)
            with pytest.raises(jobq.NotFoundError):
                await client.wait(job.id + 1, 1)
            with pytest.raises(jobq.InvalidError, match="timeout must be"):
                await client.wait(job, -1)
    asyncio.run(main())


def test_psycopg(db):
    async def main():
        async with jobq.aio.Client("host=/nonexistent") as client:
            conn = await psycopg.AsyncConnection.connect(db.uri)
            lost = await client.enqueue("lost", connection=conn)
            assert (await client.get(lost, connection=conn)).kind == "lost"
            await conn.rollback()
            await client.enqueue("one", {"n": 1}, schedule_in=60, connection=conn)
            await client.enqueue_many([{"kind": "two"}], connection=conn)
            assert db.value("SELECT count(*) FROM jobq.jobs") == 0
            await conn.commit()
            with pytest.raises(jobq.NotFoundError):
                await client.cancel(4711, connection=conn)
            await conn.rollback()
            await conn.close()
            with pytest.raises(jobq.InvalidError, match="connection must be a psycopg AsyncConnection"):
                await client.enqueue("a", connection=object())
            with psycopg.connect(db.uri) as sync, pytest.raises(jobq.InvalidError, match="AsyncConnection"):
                await client.enqueue("a", connection=sync)
    asyncio.run(main())
    assert db.query("SELECT kind FROM jobq.jobs ORDER BY id") == [("one",), ("two",)]


@pytest.mark.untrapped
def test_sqlalchemy_with_asyncpg(db):
    """Whose statements are prepared: each parameter must be of the type that its cast says."""
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
    at = datetime.datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)
    options = dict(queue="media", priority=7, max_attempts=3, timeout=1.5, key="k", tags=["a", "b"], meta={"m": 1},
                   unique=jobq.Unique(period=60), on_conflict="replace", replace=["priority"])

    async def main():
        source = create_async_engine("postgresql+asyncpg://", connect_args={
            "host": str(db.cluster.dir), "user": "admin", "database": db.name})
        async with jobq.aio.Client("host=/nonexistent") as client:
            async with AsyncSession(source) as session:
                await client.enqueue("lost", connection=session)
                await session.rollback()
                job = await client.enqueue("one", {"n": 1}, schedule_at=at, expires_at=at + datetime.timedelta(1),
                                           connection=session, **options)
                await client.enqueue("two", schedule_in=60, expires_in=120, connection=session)
                await client.enqueue_many([{"kind": "three"}, {"kind": "four", "schedule_in": 1.5}], connection=session)
                info = await client.get(job, connection=session)
                assert (info.args, info.scheduled_at, info.meta, info.timeout.total_seconds()) == ({"n": 1}, at, {"m": 1}, 1.5)
                assert db.value("SELECT count(*) FROM jobq.jobs") == 0
                await session.commit()
                with pytest.raises(jobq.NotFoundError):
                    await client.cancel(4711, connection=session)
            async with source.connect() as conn:
                assert await client.cancel(job, connection=conn) is True
                assert await client.delete_many(kind="three", connection=conn) == 1
                assert await client.purge({"n": 1}, kind="one", connection=conn) == 1
                assert await client.pause("mail", connection=conn)
                assert await client.scale("mail", 3, node="n", connection=conn)
                await conn.commit()
        await source.dispose()
    asyncio.run(main())
    assert db.query("SELECT kind FROM jobq.all_jobs ORDER BY id") == [("two",), ("four",)]


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_cancelled_call_is_cancelled(db, driver):
    """It waits for another transaction's unique key. Its task ends with CancelledError, and not with an error of the driver's."""
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    async def main(locker):
        if driver == "psycopg":
            source, conn = None, await psycopg.AsyncConnection.connect(db.uri)
        else:
            source = create_async_engine("postgresql+asyncpg://", connect_args={
                "host": str(db.cluster.dir), "user": "admin", "database": db.name})
            conn = AsyncSession(source)
        async with jobq.aio.Client("host=/nonexistent") as client:
            await client.enqueue("before", connection=conn)
            jobs = [jobq.NewJob("a", unique_key="k", on_conflict="raise")]
            task = asyncio.ensure_future(client.enqueue_many(jobs, connection=conn))
            while not db.value("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.001)
            task.cancel()
            locker.rollback()
            with pytest.raises(asyncio.CancelledError):
                await task
            await conn.close()
        if source is not None:
            await source.dispose()
    with psycopg.connect(db.uri) as locker, jobq.Client("host=/nonexistent") as sync:
        sync.enqueue("first", unique_key="k", connection=locker)
        asyncio.run(main(locker))
    assert db.query("SELECT kind FROM jobq.jobs") == []


def test_an_asynchronous_connection_is_not_for_the_synchronous_client(db, client):
    async def main():
        async with await psycopg.AsyncConnection.connect(db.uri) as conn:
            with pytest.raises(jobq.InvalidError, match="for an asynchronous connection there is jobq.aio"):
                client.enqueue("a", connection=conn)
    asyncio.run(main())


def test_inline(db):
    from app import jobs

    async def main():
        async with jobq.aio.Client(db.uri) as client:
            with testing.inline() as ran:
                await client.enqueue("echo", {"a": 1})
                await client.enqueue_many([jobs.noop.job()])
                await client.enqueue_job(jobs.coroutine.job(n=1))
            assert [job.kind for job in ran] == ["echo", "noop", "coroutine"]
    asyncio.run(main())


def test_a_closed_client(db):
    async def main():
        client = jobq.aio.Client(db.uri)
        await client.enqueue("a")
        await client.close()
        with pytest.raises(jobq.StateError, match="the client is closed"):
            await client.enqueue("a")
    asyncio.run(main())


# ---- E4 ----

def test_a_client_that_was_used_before_a_fork(db):
    """The child has none of its parent's threads: it starts its own."""
    client = jobq.aio.Client(db.uri)
    first = asyncio.run(client.enqueue("parent"))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            made = asyncio.run(asyncio.wait_for(client.enqueue("child"), 30))
            code = 0 if made.id > first.id else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert asyncio.run(client.enqueue("parent again")).id > first.id
    assert db.value("SELECT count(*) FROM jobq.jobs") == 3
    asyncio.run(client.close())
