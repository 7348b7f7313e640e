"""What every replica that holds a policy has: an engine, the newest weights, a health check, figures.

A replica pulls the newest weights as it starts, when told to (`sync`), and before it takes work that would begin under
older ones than the store's newest; so one that joined between a publication and its broadcast is no exception. All
tensors are here before the engine pauses: a publication that cannot be fetched whole changes nothing. If the engine
fails while it loads, or dies, the replica's process ends: Serve replaces one that is gone at its next look, and one
that is ill only after three of them.

With ipc, nccl or sharded_rdt the trainer pushes through `transport` before it publishes; a replica that took part has
the weights by then, and pulls nothing. If a trainer leaves a push unfinished, the replica's process ends when the next
trainer comes, after the engine's `start_timeout_s` at the latest.

`sync` waits for the store, for the engine, and for a push under way, each with the engine's `start_timeout_s`; calls
that come meanwhile wait for the same pull.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from typing import Any, Literal

from actors import meters
from actors.calls import within
from actors.engine import PolicyEngine, Update
from actors.shipping import ship
from pipeline import config
from pipeline.records import Failure, Rollout

_SHORT_S = 30.0
"""Deadline of a call that moves little."""


class PolicyReplica:
    def __init__(self, model_dir: str, engine: config.EngineConfig, seed: int, weights: Any | None, sink: Any | None):
        self._config = engine
        self._weights = weights
        self._sink = sink
        self._serial = 0
        self._changing = asyncio.Lock()
        """Held by a pull, and from the start to the finish of a push."""
        self._id = uuid.uuid4().hex
        self._met = False
        """Whether the trainer that pushes counts on this replica."""
        self._abandoned: asyncio.TimerHandle | None = None
        """Goes off when a push is not finished in time."""
        self._engine = PolicyEngine(model_dir, engine, seed)

    async def _start(self) -> None:
        meters.holding()
        await self._engine.start()
        await self.sync()

    async def sync(self, version: int = 0) -> int:
        """Pull the store's newest version, which must be `version` or later; returns the version that serves now."""
        if self._weights is None:
            return self._engine.version
        async with self._changing:
            published = await within(self._weights.fetch.remote(), "weight store", _SHORT_S)
            newest = published.version if published else 0
            if newest < version:
                raise Failure(f"weights version {version}: the store's newest is {newest}", "infra_error")
            if published is not None and published.serial > self._serial:
                everything = asyncio.gather(*published.chunks)
                chunks = await within(everything, f"weights version {published.version}", self._config.start_timeout_s)
                await self._engine.load(published.version, chunks)
                self._serial = published.serial
            return self._engine.version

    async def _catch_up(self) -> None:
        """Pull if the store has something newer than what serves."""
        if self._weights is None:
            return
        if await within(self._weights.serial.remote(), "weight store", _SHORT_S) > self._serial:
            await self.sync()

    async def transport(self, step: Literal["join", "init", "start", "update", "finish"], argument: Any = None) -> Any:
        """The calls by which the trainer's half of ipc, nccl or sharded_rdt drives an update (see `trainers.push`).

        `join` returns this replica's name and its number of vLLM workers. The others return the name of a replica that
        took part, None of one that is not among those that `init` named: it takes replica -> vLLM's init info, `update`
        vLLM's update info, `finish` the version and its serial in the weight store.
        """
        if step == "join":
            if self._abandoned:
                os._exit(1)  # half-loaded, by a trainer that is gone
            return self._id, self._config.tensor_parallel_size
        if step == "init":
            self._met = self._id in argument
        if not self._met:
            return None
        if step == "init":
            async with self._changing:
                await self._engine.init_transport(argument[self._id])
        elif step == "start":
            await self._changing.acquire()
            timer = asyncio.get_running_loop().call_later
            self._abandoned = timer(self._config.start_timeout_s, os._exit, 1)
            await self._engine.start_update()
        elif step == "update":
            await self._engine.update(argument)
        else:
            version, self._serial = argument
            await self._engine.finish_update(version)
            assert self._abandoned is not None  # `start` came first, or the engine would have refused
            self._abandoned.cancel()
            self._abandoned = None
            self._changing.release()
        return self._id

    async def _ship(self, rollout: Rollout) -> None:
        """Token arrays go straight to the sink; whoever asked for the work gets text and facts."""
        if self._sink is not None:
            await ship(self._sink, rollout)

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
