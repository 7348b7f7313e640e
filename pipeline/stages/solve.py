"""The downstream solver: GRPO on the problems of a data set alone (PAPER, downstream solver): the run's own, or any
file of problems (`solve.data`), or several with weights (`solve.mixture`). With `solve.warmup` SFT on their worked
solutions comes before it (flow/warmup.py), and the model that it leaves is the one that GRPO begins with.

    problems ──► student replicas ──completions──► answer check ──► step on disk ──► trainer ──version──► replicas
                      ▲                                  │
                      └── groups that teach nothing ─────┘ (`solve.refill`: others are asked in their place)

On-policy: the student samples step s under the weights of step s - 1. Interrupted, it goes on as MGPO does: steps on
disk are replayed by the trainer from its checkpoint, then come new ones. A completion that could not be judged because
the sandbox failed is left out of its group, neither right nor wrong. A problem that the student does not answer,
whatever the reason, costs its own group only; one whose replica died twice under it is quarantined.

With `solve.dev` some problems are kept apart, and the checkpoint that is best on them is the solver; the benchmark
chooses nothing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from actors.answers.values import Judgement
from actors.calls import within
from actors.execution import Executor
from actors.solver import Completion
from pipeline.config import SourceConfig
from pipeline.flow import warmup
from pipeline.flow.context import Context
from pipeline.flow.groups import Group, filled, rewarded
from pipeline.flow.mixture import Mixture, Source
from pipeline.flow.steps import state_of, write_step
from pipeline.flow.training import run_with_trainer, spec_for, start_trainer, trainable
from pipeline.flow.weight_sync import WeightSync
from pipeline.pools.loaders import StepLoader
from pipeline.records import Failure, Lost, Problem
from pipeline.scoring.evaluation import judge, score
from pipeline.scoring.problems import of_row, read
from pipeline.scoring.statistics import mean
from pipeline.store import accounts, metrics
from pipeline.store.ledger import Ledger
from pipeline.store.manifest import verified
from pipeline.watch.fanout import map_bounded
from pipeline.watch.gauges import showing
from pipeline.watch.retry import Attempts
from pipeline.watch.watchdog import Watchdog, watching

_FIRST_LAST = 5
_AT_ONCE = 64
OWN = "the data set of this run"


async def run(context: Context) -> dict[str, Any]:
    config = context.config
    trainable("solve.base", config.solve.base)
    sources = _sources(context)
    _, dev = _split(context, [problem for source in sources for problem in source.problems])
    sources = _without(sources, dev)
    problems = Mixture(sources, context.rng)
    await context.cluster.stop_writing()
    base = context.domain.model(config.solve.base.path)
    base = await warmup.warmed(context, base, [problem for source in sources for problem in source.problems], dev)
    done = context.run.steps("solve")
    context.metrics.log("solve-ledger", len(done), accounts.check(context.run, "solve"))
    loader = context.cluster.actor(StepLoader, [str(folder) for folder in done], config.trainer.step_timeout_s)
    spec = spec_for(context, "solve", base)
    pool = None if spec.transport == "object_store" else await context.cluster.student(base)
    trainer = start_trainer(context.cluster, spec, loader, context.cluster.weights("student"), pool)

    scores: dict[str, float] = {}
    work = _produce(context, base, loader, problems, dev, scores)
    summary = await run_with_trainer(trainer, work, config.trainer.step_timeout_s)
    context.metrics.log("solve-ledger", config.solve.steps, accounts.check(context.run, "solve"))
    rewards = metrics.values(context.run, "solve", "reward")
    return {
        "steps": len(context.run.steps("solve")),
        "problems": sum(len(source.problems) for source in sources),
        "sources": _told(context, sources, problems),
        "warmup": warmup.told(context.run),
        "reward_first": mean(rewards[:_FIRST_LAST]),
        "reward_last": mean(rewards[-_FIRST_LAST:]),
        "dev": scores,
        "checkpoint": str(_best(scores, summary.checkpoint)),
    }


def _best(scores: dict[str, float], last: Path) -> Path:
    """The checkpoint that is best on the dev problems, the newest of equals; the last one where there are none. The
    model that training began with, step 0, has a score, and is no checkpoint."""
    steps = [int(step) for step in scores if int(step) > 0]
    if not steps:
        return last
    return last.with_name(f"step-{max(steps, key=lambda step: (scores[str(step)], step)):06d}")


def _sources(context: Context) -> list[Source]:
    """What is learned from, by the names of the files; of the run's own data set those that its band takes."""
    solve, seed = context.config.solve, context.config.seed
    found = []
    for asked in solve.mixture or (SourceConfig(path=solve.data),):
        if asked.path is None:
            context.result_of("synthesize")
            file = context.run.path("dataset", "problems.jsonl")
        else:
            file = context.domain.resolve(asked.path)
        problems = [of_row(row) for row in read(file, seed=seed)]
        own = asked.path is None
        found.append(Source(asked.path or OWN, asked.weight, _within_band(context, problems) if own else problems))
    return found


def _told(context: Context, sources: Sequence[Source], mixture: Mixture) -> dict[str, Any]:
    asked = mixture.asked(_position(context, len(context.run.steps("solve")) + 1))
    return {
        source.name: {"problems": len(source.problems), "weight": source.weight, "asked": asked[source.name]}
        for source in sources
    }


def _within_band(context: Context, problems: list[Problem]) -> list[Problem]:
    """Those whose rate, as the data set says it, lies within `solve.band`. Raises Failure if none does."""
    low, high = context.config.solve.band
    if (low, high) == (0.0, 1.0):
        return problems
    lines = verified(context.run.path("dataset", "provenance.jsonl")).read_text(encoding="utf-8").splitlines()
    rates = [json.loads(line).get("pass_rate") for line in lines if line]
    if None in rates:
        raise Failure("solve.band: the data set does not say all rates (nobody probed some); expected no band")
    chosen = [problem for problem, rate in zip(problems, rates, strict=True) if low <= rate <= high]
    if not chosen:
        raise Failure(f"solve.band ({low:g}, {high:g}): no rate of the data set's {len(problems)} problems is within")
    return chosen


def _split(context: Context, problems: list[Problem]) -> tuple[list[Problem], list[Problem]]:
    """(to train on, dev). Raises Failure where dev would leave nothing to train on."""
    size = context.config.solve.dev
    if size >= len(problems):
        raise Failure(f"solve.dev ({size}) must be below the number of problems ({len(problems)})")
    chosen = set(context.rng("solve", "dev").sample(range(len(problems)), size))
    return (
        [p for i, p in enumerate(problems) if i not in chosen],
        [p for i, p in enumerate(problems) if i in chosen],
    )


def _without(sources: Sequence[Source], dev: Sequence[Problem]) -> list[Source]:
    """What of each source is trained on. Raises Failure where that is nothing."""
    apart = set(map(id, dev))
    left = [replace(source, problems=[p for p in source.problems if id(p) not in apart]) for source in sources]
    for source, whole in zip(left, sources, strict=True):
        if not source.problems:
            raise Failure(
                f"solve.mixture: solve.dev leaves none of the {len(whole.problems)} problems of {source.name}"
            )
    return left


async def _produce(
    context: Context, base: Path, loader: Any, problems: Mixture, dev: list[Problem], scores: dict[str, float]
) -> None:
    """Sample, write and release the steps that are not on disk yet, and follow the trainer to its end; the student
    begins as `base`. `scores` is filled with what each checkpoint is worth on the dev problems, by its step."""
    config, done = context.config, len(context.run.steps("solve"))
    if done:
        scores |= state_of(context.run.steps("solve")[-1]).get("dev", {})
    student, sandbox = await asyncio.gather(context.cluster.student(base), context.cluster.sandbox())
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
                    if dev and (step - 1) % config.solve.checkpoint_every == 0:
                        scores[str(step - 1)] = await _dev_score(context, student, executor, dev, watchdog, step - 1)
                    watchdog.beat(f"answers of step {step}")
                    facts = await _step(context, sampler, executor, problems, step, scores)
                    folder = context.run.path("steps", "solve", f"{step:06d}")
                    await within(loader.release.remote(step, str(folder)), "step loader", 60)
                    progress.advance(1, accuracy=facts["reward"])
                await within(loader.finish.remote(), "step loader", 60)
                await following
            if dev:
                last = config.solve.steps
                scores[str(last)] = await _dev_score(context, student, executor, dev, watchdog, last)


async def _dev_score(
    context: Context, student: Any, executor: Executor, dev: list[Problem], watchdog: Watchdog, step: int
) -> float:
    """The share of right answers to the dev problems by the weights of this step, which the student serves. Every step
    asks a problem with the same seed. One that is not answered ends nothing. Raises Failure: infrastructure failed all.
    """
    solve, n = context.config.solve, context.config.solve.dev_samples
    watchdog.beat(f"the dev score of step {step}")

    async def ask(number: int) -> list[str] | Failure:
        """Answers to this problem, or why there are none."""
        problem, seed = dev[number], context.seed("solve", "dev", "answers", number)
        attempts = Attempts(context.config.episode.attempts)
        async for _ in attempts:
            response = student.answers.remote(problem.question, n, solve.sampling, seed, problem.answer_kind)
            try:
                texts: list[str] = await within(response, "student", solve.timeout_s)
            except Failure as e:
                why = e
                attempts.note(e)
                if e.kind != "infra_error":
                    break
            else:
                watchdog.beat(f"the dev score of step {step}")
                return texts
        return why

    asked = await map_bounded(ask, range(len(dev)), _AT_ONCE)
    lost = [why for why in asked if isinstance(why, Failure) and why.kind == "infra_error"]
    if len(lost) == len(dev):
        raise lost[0]
    answered = [(problem, texts) for problem, texts in zip(dev, asked, strict=True) if not isinstance(texts, Failure)]
    posed, texts_of_all = [p for p, texts in answered for _ in texts], [t for _, texts in answered for t in texts]
    judged = iter(await judge(posed, texts_of_all, executor))
    outcomes: list[list[Judgement]] = [
        [_unanswered(texts)] * n if isinstance(texts, Failure) else list(islice(judged, n)) for texts in asked
    ]
    rows: list[dict[str, Any]] = [{} for _ in dev]
    found = score(rows, outcomes)
    context.metrics.log(
        "solve-dev",
        step,
        {
            "mean": found["mean"],
            "low": found["interval"][0],
            "high": found["interval"][1],
            "unanswered": float(len(dev) - len(answered)),
        },
    )
    return float(found["mean"])


def _unanswered(why: Failure) -> Judgement:
    """What no answer at all is worth: wrong, but not judged where infrastructure failed."""
    return "unknown" if why.kind == "infra_error" else "different"


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
    context: Context, sampler: Sampler, executor: Executor, problems: Mixture, step: int, dev: dict[str, float]
) -> dict[str, float]:
    """Sample and reward one step, and write it, with the dev scores that came before it; returns its metrics."""
    began = time.monotonic()
    solve, first = context.config.solve, _position(context, step)
    masks = solve.overlong == "mask"
    sampler.ledger.begin(step)

    async def ask(positions: Sequence[int]) -> list[Group]:
        chosen = [problems.at(position) for position in positions]
        named = [(f"solve-{step:06d}-{position - first:04d}", p) for position, p in zip(positions, chosen, strict=True)]
        asked = await map_bounded(lambda one: sampler.group(*one), named, _AT_ONCE)
        answered = [[] if isinstance(group, Failure) else group for group in asked]
        posed = [problem for problem, group in zip(chosen, answered, strict=True) for _ in group]
        judged = iter(await judge(posed, [c.text for group in answered for c in group], executor))
        return [
            Group(problem, tuple(own), tuple(islice(judged, len(own))), group if isinstance(group, Failure) else None)
            for problem, own, group in zip(chosen, answered, asked, strict=True)
        ]

    groups = await filled(ask, first, solve.problems, solve.refill, masks)
    completions = [c for group in groups for c in group.completions]
    outcomes = [outcome for group in groups for outcome in group.judged]
    rows, ends = rewarded(groups, solve.refill, masks)
    if not rows:
        if masks and rewarded(groups, solve.refill, masks=False)[0]:
            raise Failure(
                f"solve: of every group of step {step} fewer than 2 answers end within solve.sampling.max_tokens "
                f"({solve.sampling.max_tokens}), and solve.overlong (mask) leaves out the others; expected more "
                "tokens, or overlong: wrong"
            )
        whys = [group.failure for group in groups if group.failure is not None]
        kind = Lost if any(isinstance(why, Lost) for why in whys) else Failure
        raise kind("; ".join([f"solve: no answer of step {step} could be judged", *map(str, whys[:1])]), "infra_error")
    known = [outcome == "equal" for outcome in outcomes if outcome != "unknown"]
    facts = {
        "reward": mean([float(right) for right in known]),
        "unknown": float(outcomes.count("unknown")),
        "unanswered": float(sum(not group.completions for group in groups)),
        "groups": float(len(groups)),
        "groups_that_teach": float(sum(group.teaches(masks) for group in groups)),
        "refilled": float(len(groups) - solve.problems),
        "response_tokens": mean([float(c.tokens) for c in completions]),
        "sampled_tokens": float(sum(c.tokens for c in completions)),
        "truncated_rate": mean([float(c.truncated) for c in completions]),
        "rollout_s": time.monotonic() - began,
    }
    await within(
        context.cluster.buffer().drop.remote([k for k, e in ends.items() if e != "trained"]), "rollout buffer", 60
    )
    state = {"position": first + len(groups), "dev": dev}
    await write_step(context, "solve", step, sampler.ledger, ends, rows=rows, state=state, facts=facts)
    return facts


def _position(context: Context, step: int) -> int:
    """Where in the data a step begins: after what the one before it has asked."""
    if step == 1:
        return 0
    state = state_of(context.run.path("steps", "solve", f"{step - 1:06d}"))
    return int(state.get("position", (step - 1) * context.config.solve.problems))  # earlier versions never refilled
