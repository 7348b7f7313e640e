"""The stream of judged episodes: task -> episode -> verdict -> probe, with every failure accounted for.

    task ──► proposer (or teacher) ──► committee ──► prober ──► Judged
                 │ rollout, straight to the buffer

Consumes tasks; produces one `Judged` for each task, in any order, as many side by side as the caller asks for. Of these
the proposer pool has as many as it takes: an episode that is back makes room for the next one, whatever its verdict and
probe still need. It waits for the pools, each call with a deadline. Where infrastructure fails, the one call is made
again, up to `episode.attempts` times: a new episode under a new attempt number, but the same episode is judged and
probed again. A task that never got an answer comes back as an episode with outcome `infra_error`, it is never lost.
Each attempt is in the ledger before it is sent. The text of an episode passes through here (to be judged, and written
down); token arrays do not.

A task whose worker died under it may be what killed it. Its last attempt runs with no other such task beside it; if
the worker dies again, the task is quarantined: its input is saved, and it counts as failed. So is a problem under which
a judge or a prober died twice.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeVar

from actors.calls import answer
from pipeline.config import Config
from pipeline.domains.base import Domain
from pipeline.records import Episode, Failure, Lost, Outcome, Probe, Task, Verdict
from pipeline.scoring import audit
from pipeline.scoring.judged import Judged, lacks_votes
from pipeline.store.ledger import ENDS, Key, Ledger

T = TypeVar("T")
_BACKOFF_S = 0.5
_POOLS = ("proposer", "committee", "prober")


class Stream:
    """`writer` is the pool that plays episodes; `prober` None leaves probing out (SFT) · `before`: accounts of
    the stage when the stream begins, nothing live."""

    def __init__(
        self,
        config: Config,
        writer: Any,
        committee: Any,
        prober: Any | None,
        sink: Any | None,
        ledger: Ledger,
        before: Mapping[str, int] | None = None,
    ):
        self._config = config
        self._writer = writer
        self._committee = committee
        self._prober = prober
        self._sink = sink
        self._ledger, self._ledgers = ledger, [ledger]
        pool = config.proposer.pool
        self._room = asyncio.Semaphore(pool.max_ongoing * pool.max_replicas)
        self._suspects = asyncio.Semaphore(1)
        self._at: dict[Key, tuple[str, float]] = {}
        self._counts = Counter({name: (before or {}).get(name, 0) for name in ("issued", *ENDS)})
        self._begin()

    def _begin(self) -> None:
        self.retries = 0
        self.quarantined = 0
        self.waited_s: dict[str, float] = dict.fromkeys(_POOLS, 0.0)
        """Task-seconds at each pool so far: over a time span, its mean queue depth times the span."""

    def of(self, ledger: Ledger) -> Stream:
        """The same stream for the attempts of a step with a ledger of its own, beside other steps: they share the room
        in the pools, queues and accounts; `retries`, `quarantined` and `waited_s` are the step's."""
        step = copy.copy(self)
        step._begin()
        step._ledger = ledger
        self._ledgers.append(ledger)
        return step

    def queues(self) -> str:
        """What is under way: how many tasks are at which pool, and the one that has been there longest."""
        if not self._at:
            return ""
        counts = Counter(pool for pool, _ in self._at.values())
        key, (pool, since) = min(self._at.items(), key=lambda item: item[1][1])
        depths = ", ".join(f"{pool} {n}" for pool, n in sorted(counts.items()))
        return f"{depths}; oldest {key[0]} (attempt {key[1]}), {time.monotonic() - since:.0f} s at {pool}"

    def now(self) -> dict[str, float]:
        """What is under way, for a dashboard: tasks at each pool, how long the oldest has been there, and accounts."""
        at = Counter(pool for pool, _ in self._at.values())
        depths = {f"depth/{pool}": at[pool] for pool in _POOLS}
        oldest = min((since for _, since in self._at.values()), default=time.monotonic())
        return {**depths, "oldest_s": time.monotonic() - oldest, **self.accounts()}

    def accounts(self) -> dict[str, int]:
        """Attempts of the stage by state. `pipeline.store.accounts` has the same from the disk.

        What is live the ledger says, which does not know these counts: issued = trained + filtered + failed + live is
        a check on both.
        """
        return dict(self._counts) | {"live": sum(ledger.live for ledger in self._ledgers)}

    def settle(self, account: Mapping[str, int]) -> None:
        """A step is committed, with this account: its attempts have their ends."""
        self._counts.update({end: account[end] for end in ENDS})
        if self._ledger is not self._ledgers[0]:  # a step's own
            self._ledgers.remove(self._ledger)

    async def judged(self, task: Task, prober: str | None = None) -> Judged:
        """Play, judge and probe one task."""
        episode = await self._played(task)
        try:
            judged = await self._verified(episode, prober)
        except Failure as e:
            outcome = Outcome(kind=e.kind, reason=str(e))
            judged = Judged(_given_up(task, episode.attempt, outcome), None, None)
        self._ledger.judged(judged.key, judged.episode.sampled_tokens)
        return judged

    async def _played(self, task: Task) -> Episode:
        """The episode of a task; another one, under the next number, for each that infrastructure failed."""
        attempts, pool = self._config.episode.attempts, self._config.proposer.pool
        # A pool that could grow, and has not yet, plays what there is room for in so many rounds.
        rounds = -(-pool.max_replicas // pool.min_replicas)
        deadline_s = rounds * self._config.episode.limits.wall_s + 60
        deaths: list[str] = []
        for again in range(1, attempts + 1):
            last = again == attempts
            async with self._suspects if last and deaths else nullcontext(), self._room:
                key = task.id, self._ledger.issue(task.id)
                self._counts["issued"] += 1
                try:
                    response = self._writer.episode.remote(task, key[1])
                    episode: Episode = await self._shown(key, "proposer", answer(response, "proposer", deadline_s))
                except Failure as e:
                    if isinstance(e, Lost):
                        deaths.append(str(e))
                    episode = _given_up(task, key[1], Outcome(kind=e.kind, reason=str(e)))
            if episode.outcome.kind != "infra_error" or last:
                break
            self._ledger.fail(key, episode.outcome.reason)
            self._counts["failed"] += 1
            await self.drop([Judged(episode, None, None)])  # it may have been played, and only its answer was lost
            await self._pause(again)
        if len(deaths) > 1 and episode.outcome.kind == "infra_error":
            self._quarantine(key, {"task": task.model_dump(mode="json"), "deaths": deaths})
        return episode

    async def _verified(self, episode: Episode, prober: str | None) -> Judged:
        """Judge and probe an episode that handed something in. Raises Failure if infrastructure keeps failing."""
        problem, c = episode.submitted, self._config
        if problem is None or episode.outcome.kind != "ok":
            return Judged(episode, None, None)
        judging = partial(self._committee.judge.remote, problem, episode, episode.active)
        verdict: Verdict = await self._insist(episode, "committee", judging, c.committee.timeout_s, lacks_votes)
        if self._prober is None or not verdict.accepted:
            return Judged(episode, verdict, None)
        probing = partial(self._prober.probe.remote, problem, prober, episode.task.seed)
        probe: Probe = await self._insist(episode, "prober", probing, c.prober.timeout_s)
        return Judged(episode, verdict, probe)

    async def _insist(
        self,
        episode: Episode,
        pool: str,
        call: Callable[[], Awaitable[T]],
        timeout_s: float,
        lacks: Callable[[T], bool] = lambda _: False,
    ) -> T:
        """A call that changes nothing, made again where infrastructure failed it, or a part of its answer (`lacks`):
        the episode stays as it was played. Raises the last Failure."""
        attempts, key = self._config.episode.attempts, (episode.id, episode.attempt)
        deaths: list[str] = []
        for again in range(1, attempts + 1):
            last = again == attempts
            try:
                reply = await self._shown(key, pool, answer(call(), pool, timeout_s))
            except Failure as e:
                if isinstance(e, Lost):
                    deaths.append(str(e))
                if e.kind != "infra_error" or last:
                    if len(deaths) > 1:
                        self._quarantine(key, {"episode": episode.model_dump(mode="json"), "deaths": deaths})
                    raise
            else:
                if last or not lacks(reply):
                    return reply
            await self._pause(again)
        raise AssertionError("the last attempt returns or raises")

    def _quarantine(self, key: Key, record: Mapping[str, Any]) -> None:
        self.quarantined += 1
        self._ledger.quarantine(key, record)

    async def _pause(self, again: int) -> None:
        self.retries += 1
        await asyncio.sleep(_BACKOFF_S * again)

    async def _shown(self, key: Key, pool: str, work: Awaitable[T]) -> T:
        """Await `work`, with the task shown at `pool` meanwhile."""
        self._at[key] = pool, time.monotonic()
        try:
            return await work
        finally:
            _, since = self._at.pop(key)
            self.waited_s[pool] += time.monotonic() - since

    async def spot_check(self, judged: Sequence[Judged], domain: Domain, seed: int) -> dict[str, float]:
        """The committee's false accepts on accepted problems that the domain spoils; see `audit.spot_check`."""
        accepted = [(j.episode.submitted, j.episode.active) for j in judged if j.accepted and j.episode.submitted]
        try:
            return await audit.spot_check(
                self._committee, accepted, domain.plant, self._config.committee.spot_checks, seed
            )
        except Failure:
            return {"spot_checks_failed": 1.0}  # a step is worth more than the figure that it goes without

    async def drop(self, judged: Sequence[Judged]) -> None:
        """Forget the rollouts of episodes that will not be trained on."""
        if self._sink is not None and judged:
            await answer(self._sink.drop.remote([j.key for j in judged]), "rollout buffer", 60)

    async def clear(self) -> None:
        """Forget all rollouts: a step has ended of which none is kept."""
        if self._sink is not None:
            await answer(self._sink.clear.remote(), "rollout buffer", 60)


def _given_up(task: Task, attempt: int, outcome: Outcome) -> Episode:
    return Episode(
        id=task.id, attempt=attempt, task=task, turns=(), active=tuple(s.id for s in task.skills), submitted=None,
        outcome=outcome, policy_versions=(), prompt_tokens=0, sampled_tokens=0, wall_s=0.0,
    )  # fmt: skip
