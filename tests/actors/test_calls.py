"""Calls of pools and actors: whose time-out it was."""

import asyncio

import pytest
from ray.exceptions import RayTaskError

from actors.calls import within
from pipeline.records import Failure


async def fails(error):
    raise error


async def never():
    await asyncio.sleep(60)


@pytest.mark.parametrize("timeout_s", [None, 5.0])
def test_a_callees_own_time_out_is_told_in_its_words(timeout_s):
    error = RayTaskError("f", "traceback", TimeoutError("the store did not answer")).as_instanceof_cause()
    assert isinstance(error, TimeoutError)
    with pytest.raises(Failure, match="pool: TimeoutError: the store did not answer") as caught:
        asyncio.run(within(fails(error), "pool", timeout_s))
    assert caught.value.kind == "infra_error"


def test_ours_names_the_deadline():
    with pytest.raises(Failure, match=r"pool: no answer within 0\.01 s"):
        asyncio.run(within(never(), "pool", 0.01))
