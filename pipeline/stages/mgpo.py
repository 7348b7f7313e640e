"""MGPO (PAPER, stage 3): the proposer is trained on what it writes.

    curriculum ──tasks──► Stream ──judged──► step NNNNNN on disk ──release──► trainer ──version──► proposer replicas
        ▲                                        │                              (Ray Train)                  │
        └────────── success rates ◄──────────────┘            `WeightSync` waits for each version and has it pulled ┘

The driver's loop begins one step after another, each as soon as the replicas serve a version that is at most
`max_staleness` behind it; plays the step's groups, writes the step, releases it to the trainer. `WeightSync` waits for
the trainer's steps and tells the replicas to pull. With `max_staleness` 0 the two alternate. With n they overlap, and
up to n + 1 steps are under way: a slot in the proposer pool that a step no longer fills, while its last episodes are
played, judged and probed, is filled by a group of the next. A step is written when it has been played and the one
before it is written.

Invariant: a step on disk is exactly what the trainer sees, and what it offers follows from the step `max_staleness` + 1
before it, whatever came back when. A run that is interrupted reads the steps on disk back, lets the trainer replay
those after its checkpoint, and goes on with the next number: nothing is lost, nothing is counted twice.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from actors.calls import within
from actors.reflection import ReflectionJudge
from pipeline.domains.base import Identity
from pipeline.flow.context import Context
from pipeline.flow.steps import Row, register_of, state_of, write_step
from pipeline.flow.stream import StepStream, Stream
from pipeline.flow.tasks import make_curriculum, make_tasks
from pipeline.flow.training import run_with_trainer, spec_for, start_trainer, trainable
from pipeline.flow.weight_sync import WeightSync
from pipeline.pools.loaders import StepLoader
from pipeline.records import Failure, Task
from pipeline.scoring import rewards
from pipeline.scoring.identity import alert, diversity
from pipeline.scoring.judged import Judged
from pipeline.scoring.statistics import mean
from pipeline.scoring.summary import commonest_failure, copies, ends, raise_if_all_failed, staleness, summarize
from pipeline.skills import probing
from pipeline.skills.curriculum import Curriculum
from pipeline.store import accounts, metrics
from pipeline.store.ledger import Key, Ledger
from pipeline.watch.fanout import map_bounded
from pipeline.watch.gauges import showing
from pipeline.watch.watchdog import Watchdog, watching
from trainers.spec import TrainSummary

_FIRST_LAST = 3
"""Steps averaged for the first and last figures of the result."""


async def run(context: Context) -> dict[str, Any]:
    config, cluster = context.config, context.cluster
    trainable("proposer", config.proposer)
    base = Path(context.result_of("sft")["checkpoint"])
    done = context.run.steps("mgpo")
    before = accounts.check(context.run, "mgpo")
    context.metrics.log("mgpo-ledger", len(done), before)
    loader = cluster.actor(StepLoader, [str(folder) for folder in done], config.trainer.step_timeout_s)
    spec = spec_for(context, "mgpo", base)
    pool = None if spec.transport == "object_store" else await cluster.proposer(base)
    trainer = start_trainer(cluster, spec, loader, cluster.weights("proposer"), pool)
    # What an earlier process left live has failed by the time the first attempt is issued.
    before |= {"failed": before["failed"] + before["live"]}
    summary = await run_with_trainer(trainer, _produce(context, base, loader, before), config.trainer.step_timeout_s)
    context.metrics.log("mgpo-ledger", config.mgpo.steps, accounts.check(context.run, "mgpo"))
    return _result(context, summary)


async def _produce(context: Context, base: Path, loader: Any, before: dict[str, int]) -> None:
    """Play, write and release the steps that are not on disk yet, and follow the trainer to its end."""
    config, cluster, done = context.config, context.cluster, len(context.run.steps("mgpo"))
    proposer, committee, prober = await asyncio.gather(cluster.proposer(base), cluster.committee(), cluster.prober())
    stream = Stream(config, proposer, committee, prober, cluster.buffer(), before)
    with context.progress.stage("mgpo", config.mgpo.steps, "step", done) as progress:
        async with (
            watching("mgpo", config.watchdog_s) as watchdog,
            showing(context.metrics, "mgpo-now", lambda: stream.now() | watchdog.now()),
        ):
            watchdog.queues = stream.queues
            sync = WeightSync(context, "mgpo", loader, proposer, watchdog)
            producer = Producer(context, stream, watchdog)

            async def released(step: int, earlier: asyncio.Task[None] | None) -> None:
                facts = await producer.step(step, earlier)
                folder = str(context.run.path("steps", "mgpo", f"{step:06d}"))
                await within(loader.release.remote(step, folder), "step loader", 60)
                progress.advance(
                    1, accepted=facts["accepted_rate"], difficulty=facts["difficulty"], reward=facts["reward"]
                )

            async with asyncio.TaskGroup() as group:
                following = group.create_task(sync.follow(config.mgpo.steps))
                last: asyncio.Task[None] | None = None
                for step in range(done + 1, config.mgpo.steps + 1):
                    watchdog.beat(f"the trainer, to sample step {step} no more than {config.mgpo.max_staleness} behind")
                    await sync.reached(step - 1 - config.mgpo.max_staleness)
                    watchdog.beat(f"episodes of step {step}")
                    last = group.create_task(released(step, last))
                if last is not None:
                    await last
                await within(loader.finish.remote(), "step loader", 60)
                await following


class Producer:
    """Plays steps: tasks to judged groups to a step directory. Its state is restored from the last step on disk."""

    def __init__(self, context: Context, stream: Stream, watchdog: Watchdog):
        self._context, self._stream, self._watchdog = context, stream, watchdog
        self._curriculum, self._ladder = self._after(len(context.run.steps("mgpo")))
        self._played_at = 0.0
        """When the last step had been played. A step's rate counts from then at the earliest, for steps overlap."""
        # Problems that the teacher wrote count as seen: to recite one is no new problem.
        self._seen = register_of(context.run, context.config, ("sft", "mgpo"))
        judge, told = context.config.reward.judge, context.domain.prompts.roles.get("reflection_judge")
        self._judge = ReflectionJudge(judge, told) if judge else None

    def _after(self, step: int) -> tuple[Curriculum, probing.Ladder]:
        """Curriculum and ladder of probers as a step on disk has left them; as they begin, for 0 and less."""
        curriculum, ladder = make_curriculum(self._context), probing.Ladder()
        if step > 0:
            state = state_of(self._context.run.path("steps", "mgpo", f"{step:06d}"))
            curriculum.restore(state["curriculum"])
            ladder = probing.Ladder.model_validate(state["ladder"])
        return curriculum, ladder

    async def step(self, step: int, earlier: asyncio.Task[None] | None = None) -> dict[str, float]:
        """Play and judge one step, wait for the one before it (`earlier`), then reward and write it; returns its
        metrics."""
        c = self._context.config
        began = time.monotonic()
        curriculum, ladder = self._after(step - 1 - c.mgpo.max_staleness)
        prober = probing.prober(ladder, c.prober)
        tasks = make_tasks(self._context, curriculum, "mgpo", step, c.mgpo.groups, c.mgpo.group_size)
        ledger = Ledger(self._context.run, "mgpo")
        ledger.begin(step)
        stream = self._stream.step(ledger)
        # As many tasks may be with the judges as with the proposer: so judges that are slow for a moment do not keep
        # the proposer waiting, and judges that stay slow hold it back.
        at_once = 2 * c.proposer.pool.max_ongoing * c.proposer.pool.max_replicas
        judged = await map_bounded(lambda task: self._judged(stream, task, prober), tasks, at_once)
        rollout_s = time.monotonic() - began
        if earlier is not None:
            await earlier
        since, self._played_at = max(began, self._played_at), time.monotonic()
        raise_if_all_failed("mgpo", judged)
        self._seen.fade(c.reward.memory)
        copied = copies(judged, self._seen)
        rows = await self._credited(judged, self._rows(judged, copied, oldest=step - 1 - c.mgpo.max_staleness))
        facts = summarize(judged, copied) | {
            "reward": mean([terminal for _, _, terminal in rows]),
            "rollout_s": rollout_s,
            "retries": stream.retries,
            "quarantined": stream.quarantined,
        }
        facts |= {f"depth/{pool}": s / rollout_s for pool, s in stream.waited_s.items()}
        facts |= staleness(judged, step)
        identities = self._identities(judged)
        facts |= diversity(identities)
        if line := alert(facts, len(identities), c.mgpo.groups):
            self._context.progress.say("mgpo", f"step {step}, little variety: {line}")
        facts |= await stream.spot_check(judged, self._context.domain, self._context.seed("mgpo", step, "spot"))
        facts |= await stream.canaries(judged, self._context.seed("mgpo", step, "canary"))
        facts["sampled_tokens_per_s"] = facts["sampled_tokens"] / (self._played_at - since)
        self._learn(judged, copied)
        trained = [key for key, _, _ in rows]
        if not rows:  # raised before the step is written: a restart would read it, and find nothing to train on
            failed = sum(j.failed for j in judged)
            raise Failure(
                f"mgpo: no group of step {step} has two episodes to train on; of {len(judged)} {failed} failed, "
                f"{commonest_failure(judged)}",
                "infra_error",
            )
        state = {"curriculum": self._curriculum.state(), "ladder": self._ladder.model_dump()}
        facts_too = {f"proficiency/{c}": m for c, m in self._curriculum.proficiency.items()}
        account = await write_step(
            self._context, "mgpo", step, ledger, ends(judged, trained),
            rows=rows, judged=judged, state=state, facts=facts | facts_too,
        )  # fmt: skip
        ledger.close()
        self._stream.committed(stream, account)
        self._context.metrics.log("mgpo-ledger", step, self._stream.accounts())
        await stream.drop([j for j in judged if j.key not in trained])
        return facts

    async def _judged(self, stream: StepStream, task: Task, prober: str) -> Judged:
        judged = await stream.judged(task, prober)
        if not judged.failed:
            self._watchdog.beat(f"episodes of {task.group_id.rpartition('-')[0]}")
        return judged

    def _rows(self, judged: list[Judged], copied: set[Key], oldest: int) -> list[Row]:
        """(key, process rewards, terminal reward) of the episodes to train on: judged, no token of a version before
        `oldest`, in groups of two and more."""
        reward = self._context.config.reward
        sizes: dict[str, int] = {}
        usable = [j for j in judged if not j.failed and j.episode.turns and j.episode.policy_versions[0] >= oldest]
        for j in usable:
            sizes[j.episode.task.group_id] = sizes.get(j.episode.task.group_id, 0) + 1
        return [
            (
                j.key,
                rewards.process(j.episode, reward, j.verdict),
                rewards.paid(j, j.key in copied, self._seen, reward),
            )
            for j in usable
            if sizes[j.episode.task.group_id] >= 2
        ]

    def _identities(self, judged: list[Judged]) -> list[Identity]:
        return [self._seen.identify(j.problem.question) for j in judged if j.accepted and j.problem]

    async def _credited(self, judged: list[Judged], rows: list[Row]) -> list[Row]:
        """The rows, with what the judge of reflections adds to the process rewards: to all of them, or where it cannot
        be reached to none, because members of a group are compared."""
        if self._judge is None:
            return rows
        self._watchdog.beat("the judge of reflections")
        episodes = {j.key: j.episode for j in judged}
        try:
            credit = await map_bounded(self._judge.credit, [episodes[key] for key, _, _ in rows], len(rows))
        except Failure as e:
            if e.kind != "infra_error":
                raise
            self._context.progress.say("mgpo", f"{e}; this step goes without the judge's credit")
            return rows
        return [
            (key, tuple(map(sum, zip(process, more, strict=True))), terminal)
            for (key, process, terminal), more in zip(rows, credit, strict=True)
        ]

    def _learn(self, judged: list[Judged], copied: set[Key]) -> None:
        """Move the curriculum and the ladder of probers, in the order of the tasks."""
        groups: dict[str, list[Judged]] = {}
        for j in judged:
            groups.setdefault(j.episode.task.group_id, []).append(j)
        for members in groups.values():
            task: Task = members[0].episode.task
            played = [j for j in members if not j.failed]
            wins = [j for j in played if j.solved and j.key not in copied]
            lost = len(played) - len(wins)
            credit = {s.id: (float(sum(s.id in j.used for j in wins)), float(lost)) for s in task.skills}
            used = [j.used if j in wins else () for j in played]
            self._curriculum.update(task.category, credit, len(wins), len(played), used)
        for j in judged:
            if j.probe is not None:
                self._ladder, switch = probing.observe(self._ladder, j.probe, self._context.config.prober)
                if switch is not None:
                    self._context.progress.say(
                        "mgpo",
                        f"prober {switch.to_prober} takes over from {switch.from_prober} at {switch.average:.2f}",
                    )


def _result(context: Context, summary: TrainSummary) -> dict[str, Any]:
    rows = metrics.read(context.run).get("mgpo", [])  # of those that were lost there is no figure
    names = ("submitted_rate", "accepted_rate", "difficulty", "hard_yield_per_1k", "reward", "prune_rate", "turns")
    ledgers = [state_of(s)["ledger"] for s in context.run.steps("mgpo")]
    return {
        "steps": len(ledgers),
        "episodes": sum(ledger["issued"] for ledger in ledgers),
        "ledger": {state: sum(ledger[state] for ledger in ledgers) for state in ledgers[0]},
        "first": {n: mean([r[n] for r in rows[:_FIRST_LAST] if n in r]) for n in names},
        "last": {n: mean([r[n] for r in rows[-_FIRST_LAST:] if n in r]) for n in names},
        "checkpoint": str(summary.checkpoint),
    }
