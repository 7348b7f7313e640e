"""Waits end, and say what for; a fan-out is bounded and fails as one."""

import asyncio

import pytest

from pipeline.records import Failure
from pipeline.watch.fanout import map_bounded
from pipeline.watch.watchdog import watching


def test_results_come_in_order_and_no_more_run_than_allowed():
    running, most = 0, 0

    async def one(item):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001 * (5 - item % 5))
        running -= 1
        return item * item

    assert asyncio.run(map_bounded(one, range(30), 4)) == [i * i for i in range(30)]
    assert most == 4


def test_the_first_error_comes_out_as_it_is_and_ends_the_rest():
    ended = []

    async def one(item):
        if item == 2:
            raise Failure("the third")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append(item)
            raise

    with pytest.raises(Failure, match=r"^the third$"):
        asyncio.run(asyncio.wait_for(map_bounded(one, range(10), 4), 20))
    assert {0, 1} <= set(ended)


def test_cancelling_the_caller_cancels_what_runs():
    ended = []

    async def one(item):
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(item)

    async def scene():
        mapping = asyncio.create_task(map_bounded(one, range(3), 2))
        await asyncio.sleep(0.01)
        mapping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await mapping

    asyncio.run(scene())
    assert sorted(ended) == [0, 1]


def test_without_a_beat_the_stage_and_what_it_waited_for_are_named():
    async def scene():
        async with watching("mgpo", 0.1) as watchdog:
            watchdog.beat("episodes of step 3")
            await asyncio.sleep(60)

    with pytest.raises(Failure, match=r"^mgpo: no progress for 0\.1 s; waited for episodes of step 3$") as caught:
        asyncio.run(asyncio.wait_for(scene(), 20))
    assert caught.value.kind == "infra_error"


def test_a_beat_puts_the_end_off():
    async def scene():
        async with watching("sft", 1) as watchdog:
            for _ in range(12):
                await asyncio.sleep(0.1)  # in all more than the limit
                watchdog.beat("more")
        return "done"

    assert asyncio.run(scene()) == "done"


def test_a_timeout_or_error_of_the_block_stays_what_it_is():
    async def scene(error):
        async with watching("sft", 30):
            raise error

    for error in (TimeoutError("ray.get: 300 s"), Failure("cause"), asyncio.CancelledError()):
        with pytest.raises(type(error)) as caught:
            asyncio.run(scene(error))
        assert caught.value is error


def test_a_timeout_ends_a_task_group_with_one_line():
    async def scene():
        async with watching("solve", 0.05):
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(60))
                await asyncio.sleep(60)

    with pytest.raises(Failure, match="solve: no progress"):
        asyncio.run(asyncio.wait_for(scene(), 20))
