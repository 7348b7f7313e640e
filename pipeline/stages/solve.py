"""The downstream solver: GRPO on the problems of a data set alone (PAPER, downstream solver): the run's own, or any
file of problems (`solve.data`).

    problems ──► student replicas ──completions──► answer check ──► step on disk ──► trainer ──version──► replicas

On-policy: the student samples step s under the weights of step s - 1. Interrupted, it goes on as MGPO does: steps on
disk are replayed by the trainer from its checkpoint, then come new ones. A completion that could not be judged because
the sandbox failed is left out of its group, neither right nor wrong. A problem that the student does not answer,
whatever the reason, costs its own group only; one whose replica died twice under it is quarantined.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from actors.answers.values import Judgement
from actors.calls import within
from actors.execution import Executor
from actors.solver import Completion
from pipeline.flow.context import Context
from pipeline.flow.steps import Row, write_step
from pipeline.flow.training import run_with_trainer, spec_for, start_trainer, trainable
from pipeline.flow.weight_sync import WeightSync
from pipeline.pools.loaders import StepLoader
from pipeline.records import Failure, Lost, Problem
from pipeline.scoring.evaluation import judge
from pipeline.scoring.problems import of_row, read
from pipeline.scoring.statistics import mean
from pipeline.store import accounts, metrics
from pipeline.store.ledger import End, Key, Ledger
from pipeline.watch.fanout import map_bounded
from pipeline.watch.gauges import showing
from pipeline.watch.retry import Attempts
from pipeline.watch.watchdog import Watchdog, watching

_FIRST_LAST = 5
_AT_ONCE = 64


async def run(context: Context) -> dict[str, Any]:
    config = context.config
    trainable("solve.base", config.solve.base)
    if config.solve.data is None:
        context.result_of("synthesize")
        file = context.run.path("dataset", "problems.jsonl")
    else:
        file = context.domain.resolve(config.solve.data)
    problems = [of_row(row) for row in read(file, seed=config.seed)]
    done = context.run.steps("solve")
    context.metrics.log("solve-ledger", len(done), accounts.check(context.run, "solve"))
    loader = context.cluster.actor(StepLoader, [str(folder) for folder in done], config.trainer.step_timeout_s)
    base = context.domain.model(config.solve.base.path)
    spec = spec_for(context, "solve", base)
    await context.cluster.stop_writing()
    pool = None if spec.transport == "object_store" else await context.cluster.student()
    trainer = start_trainer(context.cluster, spec, loader, context.cluster.weights("student"), pool)

    summary = await run_with_trainer(trainer, _produce(context, loader, problems), config.trainer.step_timeout_s)
    context.metrics.log("solve-ledger", config.solve.steps, accounts.check(context.run, "solve"))
    rewards = metrics.values(context.run, "solve", "reward")
    return {
        "steps": len(context.run.steps("solve")),
        "problems": len(problems),
        "reward_first": mean(rewards[:_FIRST_LAST]),
        "reward_last": mean(rewards[-_FIRST_LAST:]),
        "checkpoint": str(summary.checkpoint),
    }


async def _produce(context: Context, loader: Any, problems: list[Problem]) -> None:
    """Sample, write and release the steps that are not on disk yet, and follow the trainer to its end."""
    config, done = context.config, len(context.run.steps("solve"))
    student, sandbox = await asyncio.gather(context.cluster.student(), context.cluster.sandbox())
    executor = Executor(sandbox.run_batch.remote)
    with context.progress.stage("solve", config.solve.steps, "step", done) as progress:
        async with (
            watching("solve", config.watchdog_s) as watchdog,
            showing(context.metrics, "solve-now", watchdog.now),
        ):
            sync = WeightSync(context, "solve", loader, student, watchdog)
            sampler = Sampler(context, student, watchdog)
            watchdog.queues = sampler.queues
            async with asyncio.TaskGroup() as group:
                following = group.create_task(sync.follow(config.solve.steps))
                for step in range(done + 1, config.solve.steps + 1):
                    watchdog.beat(f"the trainer's step {step - 1}")
                    await sync.reached(step - 1)
                    watchdog.beat(f"answers of step {step}")
                    facts = await _step(context, sampler, executor, problems, step)
                    folder = context.run.path("steps", "solve", f"{step:06d}")
                    await within(loader.release.remote(step, str(folder)), "step loader", 60)
                    progress.advance(1, accuracy=facts["reward"])
                await within(loader.finish.remote(), "step loader", 60)
                await following


class Sampler:
    """Groups of completions, each attempt at one in the ledger."""

    def __init__(self, context: Context, student: Any, watchdog: Watchdog):
        self._context, self._student, self._watchdog = context, student, watchdog
        self.ledger = Ledger(context.run, "solve")
        self._asked_at: dict[str, float] = {}

    async def group(self, name: str, problem: Problem) -> list[Completion] | Failure:
        """The completions of a group, or why there are none."""
        self._asked_at[name] = time.monotonic()
        try:
            return await self._retried(name, problem)
        finally:
            del self._asked_at[name]

    async def _retried(self, name: str, problem: Problem) -> list[Completion] | Failure:
        solve, buffer = self._context.config.solve, self._context.cluster.buffer()
        attempts = Attempts(self._context.config.episode.attempts)
        async for _ in attempts:
            # The completions of a group are issued together, so their attempt numbers are the same.
            keys = [(f"{name}/{i}", self.ledger.issue(f"{name}/{i}")) for i in range(solve.group_size)]
            seed, (_, attempt) = self._context.seed(name), keys[0]
            response = self._student.sample.remote(
                name, problem.question, solve.group_size, solve.sampling, seed, attempt, problem.answer_kind
            )
            try:
                completions: list[Completion] = await within(response, "student", solve.timeout_s)
            except Failure as e:
                why = e
                attempts.note(e)
                for key in keys:
                    self.ledger.fail(key, str(e))
                await within(buffer.drop.remote(keys), "rollout buffer", 60)  # only the answer may have been lost
                if e.kind != "infra_error":
                    break
            else:
                for c in completions:
                    self.ledger.judged((c.episode_id, c.attempt), c.tokens)
                self._watchdog.beat(f"answers of {name.rpartition('-')[0]}")
                return completions
        if attempts.deadly:
            self.ledger.quarantine(keys[0], {"problem": problem.model_dump(mode="json"), "deaths": attempts.deaths})
        return why

    def queues(self) -> str:
        """What is under way, and the oldest of it."""
        if not self._asked_at:
            return ""
        oldest = min(self._asked_at, key=lambda group: self._asked_at[group])
        return f"student {len(self._asked_at)}; oldest {oldest}, {time.monotonic() - self._asked_at[oldest]:.0f} s"


async def _step(
    context: Context, sampler: Sampler, executor: Executor, problems: list[Problem], step: int
) -> dict[str, float]:
    """Sample and reward one step, and write it; returns its metrics."""
    began = time.monotonic()
    chosen = _choose(context, problems, step)
    named = [(f"solve-{step:06d}-{i:04d}", problem) for i, problem in enumerate(chosen)]
    sampler.ledger.begin(step)
    asked = await map_bounded(lambda one: sampler.group(*one), named, _AT_ONCE)
    answered = [[] if isinstance(group, Failure) else group for group in asked]
    completions = [c for group in answered for c in group]
    solved = [problem for problem, group in zip(chosen, answered, strict=True) for _ in group]
    judged = await judge(solved, [c.text for c in completions], executor)
    rows, ends = _rewarded(completions, judged)
    if not rows:
        whys = [group for group in asked if isinstance(group, Failure)]
        kind = Lost if any(isinstance(why, Lost) for why in whys) else Failure
        raise kind("; ".join([f"solve: no answer of step {step} could be judged", *map(str, whys[:1])]), "infra_error")
    facts = {
        "reward": mean([reward for _, _, reward in rows]),
        "unknown": float(judged.count("unknown")),
        "unanswered": float(answered.count([])),
        "response_tokens": mean([float(c.tokens) for c in completions]),
        "truncated_rate": mean([float(c.truncated) for c in completions]),
        "rollout_s": time.monotonic() - began,
    }
    await write_step(context, "solve", step, sampler.ledger, ends, rows=rows, facts=facts)
    return facts


def _rewarded(completions: Sequence[Completion], judged: Sequence[Judgement]) -> tuple[list[Row], dict[Key, End]]:
    """What is trained on, and the end of each completion."""
    keys = [(c.episode_id, c.attempt) for c in completions]
    known = Counter(key[0].rpartition("/")[0] for key, o in zip(keys, judged, strict=True) if o != "unknown")
    rows: list[Row] = []
    ends: dict[Key, End] = {}
    for key, outcome in zip(keys, judged, strict=True):
        if outcome == "unknown":
            ends[key] = "failed"  # neither right nor wrong
        elif known[key[0].rpartition("/")[0]] < 2:
            ends[key] = "filtered"  # a group of one has no advantage
        else:
            ends[key] = "trained"
            rows.append((key, [0.0], float(outcome == "equal")))
    return rows, ends


def _choose(context: Context, problems: list[Problem], step: int) -> list[Problem]:
    """The problems of a step: the data set in seeded epochs, each problem once an epoch."""
    size = context.config.solve.problems
    chosen = []
    for position in range((step - 1) * size, step * size):
        epoch, index = divmod(position, len(problems))
        order = list(range(len(problems)))
        context.rng("solve", "epoch", epoch).shuffle(order)
        chosen.append(problems[order[index]])
    return chosen
