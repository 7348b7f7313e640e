"""The stream of judged episodes: task -> episode -> verdict -> probe, with every failure accounted for.

What a stage that trains keeps going, and where the stream is in it (S: a loop of the driver's):

    curriculum ─tasks─► S step loop ─► StepStream.judged ──► PROPOSER (or teacher) ──► COMMITTEE ──► PROBER ──► Judged
        ▲                  │  ▲            one task each          │ rollout, past the driver                      │
        │ success rates    │  │                                   ▼                                               │
        └──────────────────│──│──── step NNNNNN on disk ◄──── RolloutBuffer  ◄──── keys and rewards ──────────────┘
                           │  │          │ release
               `reached` ──┘  │          ▼
                              │     StepLoader ──batches──► trainer ranks ──step done──► StepLoader
                              │                                  │ version                   │ wait_done
                              └── S WeightSync ◄─────────────────│───────────────────────────┘
                                       │ sync                    ▼
                                       └──► PROPOSER replicas ◄──pull── WeightStore

| loop | consumes | produces | waits for | who unblocks it |
|---|---|---|---|---|
| step loop | versions | steps on disk | `WeightSync.reached`, all tasks of a step | weight sync; the pools |
| `StepStream.judged` | a task | a `Judged` | each pool, with a deadline | the pool, or the deadline |
| trainer rank | batches of a step | a version | `StepLoader.next_batch`, other ranks | the step loop; a deadline |
| weight sync | finished steps | a served version | `StepLoader.wait_done`, replicas | rank 0; a deadline |

The watchdog ends a stage in which none of these moves, and says which was waited for.

The stream produces one `Judged` for each task, in any order, as many side by side as the caller asks for. Of these the
proposer pool has as many as it takes: an episode that is back makes room for the next one, whatever its verdict and
probe still need. Where infrastructure fails, the one call is made again, up to `episode.attempts` times: a new episode
under a new attempt number, but the same episode is judged and probed again. A task that never got an answer comes back
as an episode with outcome `infra_error`, it is never lost. Each attempt is in the ledger before it is sent. The text of
an episode passes through here (to be judged, and written down); token arrays do not.

A task whose worker died under it may be what killed it. Its last attempt runs with no other such task beside it; if
the worker dies again, the task is quarantined: its input is saved, and it counts as failed. So is a problem under which
a judge or a prober died twice.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Protocol, TypeVar

from actors.calls import within
from pipeline import domains
from pipeline.config import Config, PoolConfig, asks_endpoint
from pipeline.domains.base import Domain
from pipeline.records import Attempts, Episode, Failure, Lost, Outcome, Probe, Problem, Task, Verdict
from pipeline.scoring import audit, canaries, chance
from pipeline.scoring.judged import Judged, lacks_votes
from pipeline.store.ledger import ENDS, Key, Ledger
from pipeline.watch.retry import Attempts as Retries

T = TypeVar("T")
_POOLS = ("proposer", "committee", "prober")


def playing_s(pool: PoolConfig, wall_s: float) -> float:
    """How long an episode may take, from when it is sent: before a pool has grown to its full size, what there will be
    room for is played in rounds, and a pool that was empty has to start."""
    rounds = -(-pool.max_replicas // pool.at_first)
    return rounds * wall_s + 60 + (0 if pool.min_replicas else pool.start_timeout_s)


class Stream:
    """What the steps of a stage share: the pools, the room in them, and the accounts.

    `proposer` is the pool that plays episodes; `prober` None leaves probing out (SFT) · `sink`: the rollout buffer ·
    `before`: accounts of the stage when the stream begins, nothing live · `played_by`: sections of whoever plays, if it
    is not the policy.

    A pool that asks endpoints keeps the deadline of each call itself, because what a call waits there for its turn
    counts for none; from here it has none.
    """

    def __init__(
        self,
        config: Config,
        proposer: Any,
        committee: Any,
        prober: Any | None,
        sink: Any,
        before: Mapping[str, int] | None = None,
        played_by: Iterable[Any] = (),
    ):
        self.config = config
        self.proposer = proposer
        self.committee = committee
        self.prober = prober
        self.sink = sink
        self.domain = domains.of(config.domain)
        asks_judge = config.judge.endpoint is not None or any(map(asks_endpoint, config.committee.judges().values()))
        self.judging_s = None if asks_judge else config.committee.timeout_s
        asks_prober = any(model.endpoint is not None for model in config.prober.ladder)
        self.probing_s = None if asks_prober else config.prober.longest_s
        asks_policy = any(map(asks_endpoint, played_by)) or config.proposer.endpoint is not None
        self.playing_s = None if asks_policy else playing_s(config.proposer.pool, config.episode.limits.wall_s)
        self.room = asyncio.Semaphore(config.proposer.pool.max_ongoing * config.proposer.pool.max_replicas)
        self.suspects = asyncio.Semaphore(1)
        self.at: dict[Key, tuple[str, float]] = {}
        """Where each task is, and since when."""
        self.lost_s: dict[str, float] = dict.fromkeys(_POOLS, 0.0)
        """Task-seconds at each pool of calls whose replica's process was gone: what deaths of replicas and of their
        nodes have cost."""
        self.counts = Counter({name: (before or {}).get(name, 0) for name in ("issued", *ENDS)})
        self._steps: list[StepStream] = []

    def step(self, ledger: Ledger) -> StepStream:
        """The stream for the attempts of one step, which may have others beside it; `ledger` has begun the step."""
        step = StepStream(self, ledger)
        self._steps.append(step)
        return step

    def queues(self) -> str:
        """What is under way: how many tasks are at which pool, and the one that has been there longest."""
        if not self.at:
            return ""
        counts = Counter(pool for pool, _ in self.at.values())
        key, (pool, since) = min(self.at.items(), key=lambda item: item[1][1])
        depths = ", ".join(f"{pool} {n}" for pool, n in sorted(counts.items()))
        return f"{depths}; oldest {key[0]} (attempt {key[1]}), {time.monotonic() - since:.0f} s at {pool}"

    def now(self) -> dict[str, float]:
        """What is under way, for a dashboard: tasks at each pool, how long the oldest has been there, and accounts."""
        at = Counter(pool for pool, _ in self.at.values())
        depths = {f"depth/{pool}": float(at[pool]) for pool in _POOLS}
        lost = {f"lost_s/{pool}": seconds for pool, seconds in self.lost_s.items()}
        oldest = min((since for _, since in self.at.values()), default=time.monotonic())
        return {**depths, **lost, "oldest_s": time.monotonic() - oldest, **self.accounts()}

    def accounts(self) -> dict[str, int]:
        """Attempts of the stage by state. `pipeline.store.accounts` has the same from the disk.

        `live` comes from the ledgers, the others are counted here: so issued = trained + filtered + failed + live
        checks one against the other.
        """
        return dict(self.counts) | {"live": sum(step.ledger.live for step in self._steps)}

    async def clear(self) -> None:
        """Forget all rollouts: the stage trains on none of them."""
        await within(self.sink.clear.remote(), "rollout buffer", 60)

    def committed(self, step: StepStream, account: Mapping[str, int]) -> None:
        """A step is committed, with this account: its attempts have their ends."""
        self.counts.update({end: account[end] for end in ENDS})
        self._steps.remove(step)


class Account(Protocol):
    """Where attempts are kept: the ledger of a step, or of a single task that is not trained on."""

    @property
    def live(self) -> int: ...
    def issue(self, name: str) -> int: ...
    def judged(self, key: Key, tokens: int, spent: Mapping[str, float]) -> None: ...
    def fail(self, key: Key, reason: str) -> None: ...
    def quarantine(self, key: Key, record: Mapping[str, Any]) -> None: ...


class StepStream:
    """The attempts of one step. `tell`: what a pool has answered, as soon as it has."""

    def __init__(
        self, stream: Stream, ledger: Account, tell: Callable[[Episode | Verdict | Probe], None] = lambda _: None
    ):
        self._stream, self._config, self._tell = stream, stream.config, tell
        self.ledger = ledger
        self.retries = 0
        self.quarantined = 0
        self.waited_s: dict[str, float] = dict.fromkeys(_POOLS, 0.0)
        """Task-seconds at each pool so far: over a time span, its mean queue depth times the span."""
        self._spent: dict[Key, dict[str, float]] = {}
        """The same of each attempt that is under way."""

    async def judged(self, task: Task, prober: str | None = None) -> Judged:
        """Play, judge and probe one task."""
        episode = await self._played(task)
        self._tell(episode)
        try:
            judged = await self._verified(episode, prober)
        except Failure as e:
            outcome = Outcome(kind=e.kind, reason=str(e))
            judged = Judged(_given_up(task, episode.attempt, outcome), None, None)
        self.ledger.judged(judged.key, judged.episode.sampled_tokens, self._spent.pop(judged.key))
        return judged

    async def _played(self, task: Task) -> Episode:
        """The episode of a task; another one, under the next number, for each that infrastructure failed."""
        stream = self._stream
        attempts = Retries(self._config.episode.attempts)
        async for _ in attempts:
            async with stream.suspects if attempts.last and attempts.deaths else nullcontext(), stream.room:
                key = task.id, self.ledger.issue(task.id)
                stream.counts["issued"] += 1
                try:
                    response = stream.proposer.episode.remote(task, key[1])
                    episode: Episode = await self._tracked(
                        key, "proposer", within(response, "proposer", stream.playing_s)
                    )
                except Failure as e:
                    attempts.note(e)
                    episode = _given_up(task, key[1], Outcome(kind=e.kind, reason=str(e)))
            if episode.outcome.kind != "infra_error" or attempts.last:
                break
            self.ledger.fail(key, episode.outcome.reason)
            del self._spent[key]
            stream.counts["failed"] += 1
            await self.drop([Judged(episode, None, None)])  # it may have been played, and only its answer was lost
        self.retries += attempts.again
        if attempts.deadly and episode.outcome.kind == "infra_error":
            self._quarantine(key, {"task": task.model_dump(mode="json"), "deaths": attempts.deaths})
        return episode

    async def _verified(self, episode: Episode, prober: str | None) -> Judged:
        """Judge and probe an episode that handed something in. Raises Failure if infrastructure keeps failing."""
        problem, stream = episode.submitted, self._stream
        if problem is None or episode.outcome.kind != "ok":
            return Judged(episode, None, None)
        judging = partial(stream.committee.judge.remote, problem, episode, episode.active)
        verdict: Verdict = await self._retried(episode, "committee", judging, stream.judging_s, lacks_votes)
        self._tell(verdict)
        if stream.prober is None or not verdict.accepted:
            return Judged(episode, verdict, None)
        exported = Judged(episode, verdict, None).problem
        assert exported is not None
        probe = await self._probed(episode, exported, prober)
        self._tell(probe)
        return Judged(episode, verdict, probe)

    async def _probed(self, episode: Episode, problem: Problem, prober: str | None) -> Probe:
        """The probe of the prober that is asked for; where that one does no better than chance, of the first stronger
        one that does, or of the strongest. Raises Failure if infrastructure keeps failing."""
        c, pool, seed = self._config, self._stream.prober, episode.task.seed
        assert pool is not None
        baseline = chance.baseline(problem, self._stream.domain.twins(problem.question))
        enough = chance.enough(c.prober.at_first, baseline, c.reward)
        ladder = [model.path for model in c.prober.ladder]
        rungs = ladder[ladder.index(prober) :] if prober in ladder else [prober]
        weaker: tuple[Attempts, ...] = ()
        for rung in rungs:
            probing = partial(pool.probe.remote, problem, rung, seed, enough)
            found: Probe = await self._retried(episode, "prober", probing, self._stream.probing_s)
            probe = chance.measured(found, baseline, c.reward).model_copy(update={"weaker": weaker})
            if probe.solved:
                break
            judged = probe.n - probe.unknown
            weaker += (
                Attempts(
                    prober=probe.prober,
                    correct=probe.correct,
                    judged=judged,
                    unknown=probe.unknown,
                    tokens=probe.tokens,
                ),
            )
        return probe

    async def _retried(
        self,
        episode: Episode,
        pool: str,
        call: Callable[[], Awaitable[T]],
        timeout_s: float | None,
        lacks: Callable[[T], bool] = lambda _: False,
    ) -> T:
        """A call that changes nothing, made again where infrastructure failed it, or a part of its answer (`lacks`):
        the episode stays as it was played. Raises the last Failure."""
        key = episode.id, episode.attempt
        attempts = Retries(self._config.episode.attempts)
        try:
            async for _ in attempts:
                try:
                    reply = await self._tracked(key, pool, within(call(), pool, timeout_s))
                except Failure as e:
                    attempts.note(e)
                    if e.kind != "infra_error" or attempts.last:
                        if attempts.deadly:
                            record = {"episode": episode.model_dump(mode="json"), "deaths": attempts.deaths}
                            self._quarantine(key, record)
                        raise
                else:
                    if attempts.last or not lacks(reply):
                        return reply
        finally:
            self.retries += attempts.again
        raise AssertionError("the last attempt returns or raises")

    def _quarantine(self, key: Key, record: Mapping[str, Any]) -> None:
        self.quarantined += 1
        self.ledger.quarantine(key, record)

    async def _tracked(self, key: Key, pool: str, work: Awaitable[T]) -> T:
        """Await `work`, with the task shown at `pool` meanwhile."""
        self._stream.at[key] = pool, time.monotonic()
        lost = False
        try:
            return await work
        except Lost:
            lost = True
            raise
        finally:
            _, since = self._stream.at.pop(key)
            waited = time.monotonic() - since
            self._stream.lost_s[pool] += waited * lost
            self.waited_s[pool] += waited
            spent = self._spent.setdefault(key, {})
            spent[pool] = spent.get(pool, 0.0) + waited

    async def spot_check(self, judged: Sequence[Judged], domain: Domain, seed: int) -> dict[str, float]:
        """The committee's false accepts on accepted problems that the domain spoils; see `audit.spot_check`."""
        accepted = [(j.problem, j.episode.active) for j in judged if j.accepted and j.problem]
        n = self._config.committee.spot_checks
        try:
            return await audit.spot_check(
                self._stream.committee, accepted, domain.plant, n, seed, self._stream.judging_s
            )
        except Failure:
            return {"spot_checks_failed": 1.0}  # the step goes on without this figure

    async def canaries(self, judged: Sequence[Judged], seed: int) -> dict[str, float]:
        """Whether answers stay with those who may see them; see `canaries.look`."""
        stream, n = self._stream, self._config.committee.canaries
        deadlines = stream.judging_s, stream.probing_s
        return await canaries.look(stream.committee, stream.prober, judged, n, seed, deadlines)

    async def drop(self, judged: Sequence[Judged]) -> None:
        """Forget the rollouts of episodes that will not be trained on."""
        if judged:
            await within(self._stream.sink.drop.remote([j.key for j in judged]), "rollout buffer", 60)


def _given_up(task: Task, attempt: int, outcome: Outcome) -> Episode:
    return Episode(
        id=task.id, attempt=attempt, task=task, turns=(), active=tuple(s.id for s in task.skills), submitted=None,
        outcome=outcome, policy_versions=(), prompt_tokens=0, sampled_tokens=0, wall_s=0.0,
    )  # fmt: skip
