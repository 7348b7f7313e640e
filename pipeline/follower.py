"""Follows a trainer: each step it has done is logged and pulled by the replicas.

Consumes the trainer's finished steps (`StepFeed.wait_done`, which has a deadline); produces a served version. Whoever
samples waits in `reached`; `follow` unblocks it.

Invariant: the version that `reached` lets pass is in every live replica before a new request is sent.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from actors.calls import answer
from pipeline.context import Context
from pipeline.records import Failure

_PULL_S = 300.0
_AGAIN_S = 1.0


class Follower:
    """Follows the trainer: logs each step, has the replicas pull its version."""

    def __init__(self, context: Context, stage: str, feed: Any, pool: Any):
        self._context, self._stage, self._feed, self._pool = context, stage, feed, pool
        self._served = 0
        self._changed = asyncio.Condition()

    async def follow(self, steps: int) -> None:
        timeout = self._context.config.trainer.step_timeout_s
        for step in range(1, steps + 1):
            metrics = await answer(self._feed.wait_done.remote(step), "the trainer", timeout + 60)
            start = time.monotonic()
            await self._pull(step)
            if metrics:
                train = {f"train/{name}": value for name, value in metrics.items() if name != "done_at"}
                times = {"sync_s": time.monotonic() - start, "step_to_serving_s": time.time() - metrics["done_at"]}
                self._context.metrics.log(f"{self._stage}-train", step, train | times)
            async with self._changed:
                self._served = step
                self._changed.notify_all()

    async def _pull(self, step: int) -> None:
        """Have all replicas serve `step`. One that dies meanwhile, or whose engine breaks, is replaced by one that
        pulls as it starts."""
        deadline = time.monotonic() + _PULL_S
        while True:
            try:
                await answer(self._pool.broadcast("sync", step).results_async(), "weight update", 120)
                return
            except Failure as e:
                if e.kind != "infra_error" or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_AGAIN_S)

    async def reached(self, version: int) -> None:
        """Until the replicas serve `version` or a later one; `follow` unblocks it, the watchdog bounds it."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._served >= version)
