"""A cluster in which everything of MGPO is real but the models: `run` drives the stage itself with its stream, buffer,
loader, weight sync, ledger and curriculum, over pools and a trainer that only take their time.

The engine stand-in decodes as vLLM does, many sequences at once, each a token a tick; a tick is longer the more run. An
update holds all of them and lets them go on under the new version, as `pause_generation(mode="keep")` does.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from actors.engine import Update
from pipeline.config import Config
from pipeline.domains.mini.domain import SKILLS
from pipeline.flow.context import Context
from pipeline.pools.buffer import RolloutBuffer
from pipeline.records import Episode, Probe, Problem, Rollout, Skill, Task, Verdict
from pipeline.skills.extraction import SkillLibrary
from pipeline.stages import mgpo
from pipeline.store.metrics import Metrics
from pipeline.store.rundir import RunDir
from pipeline.watch.progress import Progress
from tests.pipeline.judged import episode, probe, rollout, verdict
from trainers.spec import TrainSummary


@dataclass(frozen=True)
class Pace:
    """Seconds of each part. An episode has `turns` turns with a tool call between two, of lengths that are log-normal
    with `tail` as sigma; `tick_s` is that of a token alone, twice as long with `full` sequences beside it."""

    tick_s: float = 0.0
    full: int = 64
    tokens: float = 8.0
    tail: float = 0.6
    turns: int = 3
    tool_s: float = 0.0
    judge_s: float = 0.0
    probe_s: float = 0.0
    train_s: float = 0.0
    publish_s: float = 0.0
    update_s: float = 0.0


@dataclass
class Log:
    """What happened when, in seconds since the epoch: (begin, end) of each training step and of each episode, and the
    versions that the episode was sampled under."""

    trained: list[tuple[float, float]] = field(default_factory=list)
    played: list[tuple[str, float, float, list[int]]] = field(default_factory=list)


class Paced:
    """Stands in for `Cluster`, and is the handle of every pool."""

    def __init__(self, pace: Pace):
        self.pace, self.log = pace, Log()
        self.version = 0
        self._updates: list[Update] = []
        self._running = 0
        self._serving = asyncio.Event()
        self._serving.set()
        self._buffer = handle(RolloutBuffer(ahead=9))
        for name in ("episode", "judge", "judge_many", "probe", "train"):
            setattr(self, name, method(getattr(self, f"_{name}")))

    # What the stage asks of a cluster.

    def actor(self, cls: type, *args: Any) -> Any:
        return handle(cls(*args))

    def buffer(self) -> Any:
        return self._buffer

    def weights(self, _: str) -> None:
        return None

    def nodes_may_take_s(self, _: object) -> float:
        return 0.0  # they are there

    def launcher(self) -> Any:
        return self

    async def proposer(self, _: Path) -> Any:
        return self

    async def committee(self) -> Any:
        return self

    async def prober(self) -> Any:
        return self

    # The pools.

    async def _episode(self, task: Task, attempt: int) -> Episode:
        began, rng = time.time(), random.Random(task.seed)
        versions: list[int] = []
        for turn in range(self.pace.turns):
            if turn:
                await asyncio.sleep(self.pace.tool_s)
            versions += await self._decode(max(1, round(self.pace.tokens * rng.lognormvariate(0.0, self.pace.tail))))
        self.log.played.append((task.id, began, time.time(), versions))
        sampled = rollout(task.id, attempt, task.group_id, len(versions)).model_copy(
            update={"versions": tuple(versions)}
        )
        await self._buffer.put.remote(task.id, attempt, Rollout.to_arrow([sampled]))
        played = episode(task, attempt, question=f"Problem {task.id}?", active=[s.id for s in task.skills])
        facts = {"policy_versions": tuple(sorted(set(versions))), "sampled_tokens": len(versions)}
        return played.model_copy(update=facts)

    async def _decode(self, tokens: int) -> list[int]:
        """The version under which each token of a turn is sampled."""
        self._running += 1
        versions: list[int] = []
        chunk = max(1, tokens // 8)
        while len(versions) < tokens:
            await self._serving.wait()
            some = min(chunk, tokens - len(versions))
            await asyncio.sleep(some * self.pace.tick_s * (1 + self._running / self.pace.full))
            versions += [self.version] * some
            if self._updates and self._updates[-1].first_token_at is None:
                self._updates[-1].first_token_at = time.time()
        self._running -= 1
        return versions

    async def _judge(self, problem: Problem, played: Episode, _: Any) -> Verdict:
        await asyncio.sleep(self.pace.judge_s)
        return verdict(played)

    async def _judge_many(self, cases: Any) -> list[Verdict]:
        return [verdict(SimpleNamespace(submitted=problem), "rejected") for problem, _, _ in cases]

    async def _probe(self, problem: Problem, *_: Any) -> Probe:
        await asyncio.sleep(self.pace.probe_s)
        return probe(SimpleNamespace(submitted=problem))

    def broadcast(self, name: str, *args: Any) -> Any:
        return SimpleNamespace(results_async=lambda: {"sync": self._sync, "updates": self._told}[name](*args))

    async def _sync(self, version: int) -> list[int]:
        began = time.monotonic()
        self._serving.clear()
        await asyncio.sleep(self.pace.update_s)
        self.version = version
        self._updates.append(Update(version, 0, time.time(), time.monotonic() - began))
        self._serving.set()
        return [version]

    async def _told(self) -> list[list[Update]]:
        return [self._updates]

    # The trainer.

    async def _train(self, spec: Any, loader: Any, *_: Any) -> TrainSummary:
        step = 0
        while await loader.next_batch.remote(0, 1, step + 1) is not None:
            step, began = step + 1, time.time()
            await asyncio.sleep(self.pace.train_s)
            done_at = time.time()
            self.log.trained.append((began, done_at))
            await asyncio.sleep(self.pace.publish_s)
            await loader.step_done.remote(step, {"loss": 0.0, "done_at": done_at})
        return TrainSummary(checkpoint=spec.storage, step=step, metrics={})


def method(function: Callable[..., Awaitable[Any]]) -> Any:
    """A coroutine function as a handle's method: the call is under way before it is awaited, as Ray's are."""
    return SimpleNamespace(remote=lambda *args: asyncio.ensure_future(function(*args)))


def handle(target: Any) -> Any:
    names = [name for name in dir(target) if not name.startswith("_")]
    return SimpleNamespace(**{name: method(getattr(target, name)) for name in names})


def run(root: Path, config: Config, pace: Pace) -> tuple[RunDir, Log]:
    """Play the stage `mgpo` in a new run directory; Ray must be up, for the loader puts its batches there."""
    directory = RunDir.open(root, config)
    common = {"method": "a\n\nb", "difficulty": "d", "tool_hint": "t", "score": 0.9, "source": "s"}
    skills = [Skill(id=s.id, category=s.category, intent=s.id, **common) for s in SKILLS]
    SkillLibrary(skills).save(directory.path("skills"))
    directory.finish("sft", {"checkpoint": str(root)}, 0.0)

    async def scene() -> Log:
        cluster = Paced(pace)
        with Metrics(directory) as metrics, Progress() as progress:
            await mgpo.run(Context(config, directory, cluster, metrics, progress))  # type: ignore[arg-type]
        return cluster.log

    try:
        return directory, asyncio.run(scene())
    finally:
        directory.close()
