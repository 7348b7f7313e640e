"""The proposer pool's replica: an engine and many episodes at once beside it.

Consumes tasks; produces episodes (text and facts) for the caller and their rollouts (tokens) for the sink. An episode
waits for its engine and its sandbox session, within its wall-clock limit; one Serve call is one episode.
"""

from __future__ import annotations

import time
from typing import Any

from actors.episode import KindOf, run_episode
from actors.policies import EnginePolicy
from actors.replica import PolicyReplica
from actors.tools import SandboxTools
from pipeline import config
from pipeline.records import Episode, Failure, Task


class Proposer(PolicyReplica):
    async def __init__(  # type: ignore[misc]  # Serve awaits a constructor
        self,
        model_dir: str,
        engine: config.EngineConfig,
        episode: config.EpisodeConfig,
        seed: int,
        sandbox: Any,
        system_prompt: str,
        kind_of: KindOf,
        weights: Any | None = None,
        sink: Any | None = None,
    ):
        """`sandbox`: handle of the sandbox pool · `weights`: the weight store, None keeps the model directory's ·
        `sink`: actor that takes rollouts."""
        super().__init__(model_dir, engine, seed, weights, sink)
        self._episode = episode
        self._sandbox = sandbox
        self._prompt, self._kind_of = system_prompt, kind_of
        self._policy = EnginePolicy(self._engine, episode.sampling)
        await self._start()
        if episode.limits.max_tokens > self._engine.max_model_len:
            raise Failure(
                f"episode.limits.max_tokens ({episode.limits.max_tokens}) exceeds the context of {model_dir}, "
                f"{self._engine.max_model_len} tokens; expected at most that"
            )

    async def episode(self, task: Task, attempt: int) -> Episode:
        """Play a task. The rollout has reached the sink when this returns, unless the outcome is an infra or data
        error: then there is nothing to train on, and none is sent."""
        await self._catch_up()
        played, rollout = await run_episode(
            task,
            attempt,
            self._policy,
            SandboxTools(self._sandbox),
            self._engine.chat,
            self._prompt,
            self._episode.limits,
            time.monotonic,
            self._kind_of,
        )
        if played.outcome.kind in ("ok", "model_error"):
            await self._ship(rollout)
        elif played.outcome.kind == "infra_error":
            await self.check_health()
        return played
