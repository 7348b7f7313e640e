"""Whether an actor is still the process that it was.

When Ray restarts an actor, its handle goes on working and its state is lost, so its users would not notice. Here the id
of the process that answers tells. This module imports little, because every actor that is asked loads it.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import ray

from pipeline.records import Lost

_POLL_S = 0.1


class Liveness:
    def __init__(self, actor: Any):
        self.actor = actor
        self._process: int | None = None

    async def gone(self) -> bool:
        """Whether the actor is dead, or answers from another process than last time. Waits while the actor is busy. One
        that could not begin is not gone: whoever calls it is told why."""
        try:
            process: int = await self.actor.__ray_call__.remote(_process)
        except ray.exceptions.RayActorError as e:
            return not e.actor_init_failed
        before, self._process = self._process or process, process
        return process != before

    async def renew(self, name: str, timeout_s: float) -> None:
        """Restart a lasting actor, dead or alive, so that it begins empty. Raises Lost if it is not back in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while await self.gone():
                    await asyncio.sleep(_POLL_S)
                before = self._process
                ray.kill(self.actor, no_restart=False)
                while await self.gone() or self._process == before:
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise Lost(f"{name}: did not come back within {timeout_s:g} s") from None


def _process(_: Any) -> int:
    return os.getpid()
