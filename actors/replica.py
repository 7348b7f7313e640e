"""What every replica that holds a policy has: an engine, the newest weights, a health check, figures.

Weights are pulled, not pushed. A replica pulls the newest version as it starts, when told to (`sync`), and before it
takes work that would begin under an older version than the store's newest; so one that joined between a publication
and its broadcast is no exception. All tensors are here before the engine pauses: a publication that cannot be
fetched whole changes nothing. If the engine fails while it loads, or dies, the replica's process ends: Serve replaces
one that is gone at its next look, and one that is ill only after three of them.

`sync` waits for the store and for the engine, each with the engine's `start_timeout_s`; calls that come meanwhile
wait for the same pull.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, Literal

import pyarrow as pa

from actors.calls import answer
from actors.engine import PolicyEngine, Update
from actors.weight_transfer import BACKEND
from pipeline import config
from pipeline.records import Failure, Rollout

_SHORT_S = 30.0
"""Deadline of a call that moves little."""


class PolicyReplica:
    def __init__(self, model_dir: str, engine: config.Engine, seed: int, weights: Any | None, sink: Any | None):
        self._config = engine
        self._weights = weights
        self._sink = sink
        self._serial = 0
        self._pulling = asyncio.Lock()
        self._engine = PolicyEngine(model_dir, engine, seed)

    async def _start(self) -> None:
        await self._engine.start()
        await self.sync()

    async def sync(self, version: int = 0) -> int:
        """Pull the store's newest version, which must be `version` or later; returns the version that serves now."""
        if self._weights is None:
            return self._engine.version
        async with self._pulling:
            published = await answer(self._weights.fetch.remote(), "weight store", _SHORT_S)
            newest = published.version if published else 0
            if newest < version:
                raise Failure(f"weights version {version}: the store's newest is {newest}", "infra_error")
            if published is not None and published.serial != self._serial:
                if self._config.weight_transport != BACKEND:
                    raise Failure(
                        f"weights version {published.version}: engine.weight_transport is "
                        f"{self._config.weight_transport}, whose trainer pushes; expected {BACKEND} to pull"
                    )
                everything = asyncio.gather(*published.chunks)
                chunks = await answer(everything, f"weights version {published.version}", self._config.start_timeout_s)
                await self._engine.load(published.version, chunks)
                self._serial = published.serial
            return self._engine.version

    async def _catch_up(self) -> None:
        """Pull if the store has something newer than what serves."""
        if self._weights is None or self._config.weight_transport != BACKEND:
            return
        if await answer(self._weights.serial.remote(), "weight store", _SHORT_S) != self._serial:
            await self.sync()

    async def transport(self, step: Literal["init", "start", "update", "finish"], argument: Any = None) -> None:
        """The four calls by which the trainer's half of ipc, nccl or sharded_rdt drives an update; `finish` takes the
        version. vLLM's `VLLMWeightSyncClient` maps onto them one to one."""
        if step == "init":
            await self._engine.init_transport(argument)
        elif step == "start":
            await self._engine.start_update()
        elif step == "update":
            await self._engine.update(argument)
        else:
            await self._engine.finish_update(argument)

    async def _ship(self, rollout: Rollout) -> None:
        """Token arrays go straight to the sink; whoever asked for the work gets text and facts."""
        if self._sink is not None:
            batch: pa.RecordBatch = Rollout.to_arrow([rollout])
            await answer(self._sink.put.remote(rollout.episode_id, rollout.attempt, batch), "rollout sink", _SHORT_S)

    async def stats(self) -> dict[str, float]:
        return self._engine.stats()

    async def updates(self) -> list[Update]:
        return self._engine.updates()

    async def check_health(self) -> None:
        try:
            await self._engine.check_health()
        except Failure:
            os._exit(1)  # its callers are told by Ray that the process is gone, and ask another replica

    def __del__(self) -> None:  # Serve calls it when it takes a replica down
        if engine := getattr(self, "_engine", None):
            engine.stop()
