"""Calls to pools and actors: each with a deadline, each failure a `Failure` with a kind.

Invariant: no call waits for ever, and what comes out of one is its value or a Failure in one line; that Ray wraps
errors in its own is nobody else's concern.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException

from pipeline.records import Failure

T = TypeVar("T")


async def call(response: Awaitable[T], what: str, timeout_s: float) -> T:
    """Await a Serve response or an object ref. A dead or silent other side is an infra error, its own Failure passes."""
    try:
        return await asyncio.wait_for(response, timeout_s)
    except TimeoutError:
        raise Failure(f"{what}: no answer within {timeout_s:g} s", "infra_error") from None
    except (RayError, RayServeException) as e:
        raise as_failure(e, what) from e


def as_failure(e: BaseException, what: str) -> Failure:
    """One line and a kind for whatever Ray raised."""
    cause = e.cause if isinstance(e, RayTaskError) else e
    if isinstance(cause, Failure):
        return cause
    text = next((line for line in str(cause).splitlines() if line.strip()), "")
    return Failure(f"{what}: {type(cause).__name__}: {text.strip()}", "infra_error")


class Watchdog:
    """`beat` says that there was progress, and what is awaited next."""

    def __init__(self, timeout: asyncio.Timeout, seconds: float):
        self._timeout = timeout
        self._seconds = seconds
        self.waiting_for = "the first result"

    def beat(self, waiting_for: str) -> None:
        self.waiting_for = waiting_for
        if not self._timeout.expired():
            self._timeout.reschedule(asyncio.get_running_loop().time() + self._seconds)


@asynccontextmanager
async def watchdog(stage: str, seconds: float) -> AsyncIterator[Watchdog]:
    """Ends the block with one line that names the stage and what it waited for, after `seconds` without a beat."""
    try:
        async with asyncio.timeout(seconds) as timeout:
            dog = Watchdog(timeout, seconds)
            yield dog
    except TimeoutError:
        raise Failure(f"{stage}: no progress for {seconds:g} s; waited for {dog.waiting_for}", "infra_error") from None


async def gather_bounded(make: list[Callable[[], Awaitable[T]]], at_once: int) -> list[T]:
    """Run all, at most `at_once` side by side; the first error cancels the rest."""
    gate = asyncio.Semaphore(at_once)

    async def one(job: Callable[[], Awaitable[T]]) -> T:
        async with gate:
            return await job()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(job)) for job in make]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


def kill(actor: Any) -> None:
    """End an actor that has done its work."""
    ray.kill(actor)
