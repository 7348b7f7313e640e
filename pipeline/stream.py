"""The stream of judged episodes: task -> episode -> verdict -> probe, with every failure accounted for.

    task ──► proposer (or teacher) ──► committee ──► prober ──► Judged
                 │ rollout, straight to the buffer

Consumes tasks; produces one `Judged` for each task, in any order, as many side by side as the caller asks for. It
waits for the pools, each call with a deadline. Where infrastructure fails, the one call is made again, up to
`episode.attempts` times: a new episode under a new attempt number, but the same episode is judged and probed again. A
task that never got an answer comes back as an episode with outcome `infra_error`, it is never lost. Token arrays do
not pass through here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from actors.calls import answer
from pipeline import audit
from pipeline.config import Config
from pipeline.records import Episode, Failure, Outcome, Probe, Task, Verdict

_BACKOFF_S = 0.5

T = TypeVar("T")


@dataclass(frozen=True)
class Judged:
    episode: Episode
    verdict: Verdict | None
    """None if nothing was submitted, or the episode failed."""
    probe: Probe | None
    """None unless the verdict is accepted and probing was asked for."""

    @property
    def key(self) -> tuple[str, int]:
        return self.episode.id, self.episode.attempt

    @property
    def accepted(self) -> bool:
        return self.verdict is not None and self.verdict.accepted

    @property
    def failed(self) -> bool:
        """No reward can be derived: infrastructure failed, or the committee could not decide."""
        undecided = self.verdict is not None and self.verdict.decision == "undecided"
        return undecided or self.episode.outcome.kind not in ("ok", "model_error")


class Stream:
    """`writer` is the pool that plays episodes; `prober` None leaves probing out (SFT)."""

    def __init__(self, config: Config, writer: Any, committee: Any, prober: Any | None, sink: Any | None):
        self._config = config
        self._writer = writer
        self._committee = committee
        self._prober = prober
        self._sink = sink
        self.retries = 0

    async def judged(self, task: Task, prober: str | None = None) -> Judged:
        """Play, judge and probe one task."""
        episode = await self._played(task)
        problem = episode.submitted
        if problem is None or episode.outcome.kind != "ok":
            return Judged(episode, None, None)
        c = self._config
        try:
            judging = partial(self._committee.judge.remote, problem, episode, episode.active)
            verdict: Verdict = await self._insist(judging, "committee", c.committee.timeout_s)
            if self._prober is None or not verdict.accepted:
                return Judged(episode, verdict, None)
            probing = partial(self._prober.probe.remote, problem, prober, task.seed)
            probe: Probe = await self._insist(probing, "prober", c.prober.timeout_s)
        except Failure as e:
            return Judged(_given_up(task, episode.attempt, Outcome(kind=e.kind, reason=str(e))), None, None)
        return Judged(episode, verdict, probe)

    async def _played(self, task: Task) -> Episode:
        """The episode of a task; another one, under the next number, for each that infrastructure failed."""
        grace_s = self._config.episode.limits.wall_s + 60
        for attempt in range(1, self._config.episode.attempts + 1):
            try:
                episode: Episode = await answer(self._writer.episode.remote(task, attempt), "proposer", grace_s)
            except Failure as e:
                episode = _given_up(task, attempt, Outcome(kind=e.kind, reason=str(e)))
            if episode.outcome.kind != "infra_error" or attempt == self._config.episode.attempts:
                break
            await self.drop([Judged(episode, None, None)])  # it may have been played, and only its answer was lost
            await self._pause(attempt)
        return episode

    async def _insist(self, call: Callable[[], Awaitable[T]], what: str, timeout_s: float) -> T:
        """A call that changes nothing, made again where infrastructure failed: the episode stays as it was played.
        Raises the last Failure."""
        for attempt in range(1, self._config.episode.attempts):
            try:
                return await answer(call(), what, timeout_s)
            except Failure as e:
                if e.kind != "infra_error":
                    raise
            await self._pause(attempt)
        return await answer(call(), what, timeout_s)

    async def _pause(self, attempt: int) -> None:
        self.retries += 1
        await asyncio.sleep(_BACKOFF_S * attempt)

    async def spot_check(self, judged: Sequence[Judged], seed: int) -> dict[str, float]:
        """The committee's false accepts on accepted problems that were spoiled on purpose; see `audit.spot_check`."""
        accepted = [(j.episode.submitted, j.episode.active) for j in judged if j.accepted and j.episode.submitted]
        try:
            return await audit.spot_check(self._committee, accepted, self._config.committee.spot_checks, seed)
        except Failure:
            return {"spot_checks_failed": 1.0}  # a step is worth more than the figure that it goes without

    async def drop(self, judged: Sequence[Judged]) -> None:
        """Forget the rollouts of episodes that will not be trained on."""
        if self._sink is not None and judged:
            await answer(self._sink.drop.remote([j.key for j in judged]), "rollout buffer", 60)


def _given_up(task: Task, attempt: int, outcome: Outcome) -> Episode:
    return Episode(
        id=task.id, attempt=attempt, task=task, turns=(), active=tuple(s.id for s in task.skills), submitted=None,
        outcome=outcome, policy_versions=(), prompt_tokens=0, sampled_tokens=0, wall_s=0.0,
    )  # fmt: skip
