"""Follows a trainer: each step it has done is logged and pulled by the replicas.

Consumes the trainer's finished steps (`StepLoader.wait_done`, which has a deadline); produces a served version, and
beats for the watchdog. Whoever samples waits in `reached`; `follow` unblocks it.

Invariant: the version that `reached` lets pass is in every live replica before a new request is sent.

What an update cost is logged under `<stage>-weights`, one row a version, when the next one is there or the stage ends:
only then it is known when, if ever, the first token under it was sampled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from actors.calls import within
from pipeline.flow.context import Context
from pipeline.records import Failure
from pipeline.watch.watchdog import Watchdog

if TYPE_CHECKING:
    from actors.engine import Update

_AGAIN_S = 1.0
_SHORT_S = 30.0


class WeightSync:
    """Follows the trainer: logs each step, has the replicas pull its version."""

    def __init__(self, context: Context, stage: str, loader: Any, pool: Any, watchdog: Watchdog):
        self._context, self._stage, self._loader, self._pool, self._watchdog = context, stage, loader, pool, watchdog
        config = context.config
        engine = config.proposer.engine if stage == "mgpo" else config.solve.base.engine
        # A replica whose engine hangs in an update ends itself after this long.
        self._pull_s = engine.start_timeout_s + _SHORT_S
        self._served = 0
        self._changed = asyncio.Condition()

    async def follow(self, steps: int) -> None:
        done_at: float | None = None
        times: dict[str, float] = {}
        for step in range(1, steps + 1):
            metrics = await within(self._loader.wait_done.remote(step), "the trainer", None)
            self._watchdog.beat(f"the replicas, to serve version {step}")
            if done_at is not None:
                await self._log_update(step - 1, done_at, times)
            start = time.monotonic()
            await self._pull(step)
            done_at = metrics.get("done_at")
            if done_at is not None:
                train = {f"train/{name}": value for name, value in metrics.items() if name != "done_at"}
                times = {"sync_s": time.monotonic() - start, "step_to_serving_s": time.time() - done_at}
                self._context.metrics.log(f"{self._stage}-train", step, train)
            self._watchdog.beat(f"the trainer's step {step + 1}" if step < steps else "the trainer's end")
            async with self._changed:
                self._served = step
                self._changed.notify_all()
        if done_at is not None:
            await self._log_update(steps, done_at, times)

    async def _pull(self, step: int) -> None:
        """Have all replicas serve `step`. One that dies meanwhile, or whose engine breaks, is replaced by one that
        pulls as it starts."""
        deadline = time.monotonic() + 2 * self._pull_s
        while True:
            try:
                await within(self._pool.broadcast("sync", step).results_async(), "weight update", self._pull_s)
                return
            except Failure as e:
                if e.kind != "infra_error" or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_AGAIN_S)

    async def _log_update(self, version: int, done_at: float, times: dict[str, float]) -> None:
        """Log what version `version` cost on its way from the optimizer, which was done at `done_at` (seconds since
        the epoch), into the replicas that are alive."""
        try:
            told = await within(self._pool.broadcast("updates").results_async(), "weight updates", _SHORT_S)
        except Failure:
            told = []  # a replica is being replaced; the stage goes on without these figures
        # An earlier update is of an earlier trainer, which went back to a checkpoint and published the number again.
        of_it = [u for updates in told for u in updates if u.version == version and u.served_at >= done_at]
        self._context.metrics.log(f"{self._stage}-weights", version, times | update_facts(of_it, done_at))

    async def reached(self, version: int) -> None:
        """Until the replicas serve `version` or a later one; `follow` unblocks it, the watchdog bounds it."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._served >= version)


def update_facts(updates: Sequence[Update], done_at: float) -> dict[str, float]:
    """Of one version, in each replica: `pulled_bytes` together · `held_s` that generation stood still, the longest ·
    `step_to_first_token_s`, from the optimizer's step to the first token that any of them sampled under it (absent
    before). The clocks are the trainer's and the replica's."""
    facts = {
        "replicas": float(len(updates)),
        "pulled_bytes": float(sum(u.bytes for u in updates)),
        "held_s": max((u.held_s for u in updates), default=0.0),
    }
    if first := [u.first_token_at for u in updates if u.first_token_at is not None]:
        facts["step_to_first_token_s"] = min(first) - done_at
    return facts
