"""Batches of runs: whoever gives up, and whatever the pool does, every other caller has an answer."""

import asyncio
from contextvars import ContextVar

from actors.execution import Executor
from sandbox import Request, Result

REQUEST = ContextVar("request", default="none")


def test_a_batch_is_no_part_of_the_request_that_began_it():
    """Serve cancels what a request of its own has begun, which it knows by the context."""
    seen = []

    async def pool(requests):
        seen.append((REQUEST.get(), len(requests)))
        return [Result("ok", stdout=r.code) for r in requests]

    async def caller(executor, name):
        REQUEST.set(name)
        return (await executor.run(Request(name))).stdout

    async def scene():
        executor = Executor(pool)
        first, second = (asyncio.create_task(caller(executor, name)) for name in ("first", "second"))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert asyncio.run(asyncio.wait_for(scene(), 10)) == "second"
    assert seen == [("none", 2)]


def test_callers_hear_of_a_batch_that_was_cancelled():
    async def pool(_):
        raise asyncio.CancelledError

    async def scene():
        executor = Executor(pool)
        return await asyncio.gather(executor.run(Request("1")), executor.run(Request("2")))

    results = asyncio.run(asyncio.wait_for(scene(), 10))
    assert [r.status for r in results] == ["infra", "infra"]
