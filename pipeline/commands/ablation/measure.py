"""What an arm's proposer is worth: what it writes on held-out skill combinations, and what a solver learns from it.

Both parts have a budget, the same for every arm: in episodes, that of a solver's problems also in tokens. Tasks, their
random numbers, first prober and judges are the same too, given the seed: what arms have in common cancels out.
Held-out combinations measure the proposer. A solver is trained on problems of the other combinations, because its own
benchmark is made of held-out ones.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

from pipeline import stages
from pipeline.commands.ablation.grid import Budget
from pipeline.flow.context import Context
from pipeline.flow.steps import judged_in, write_step
from pipeline.flow.stream import Stream
from pipeline.flow.tasks import make_curriculum, make_heldout, make_tasks
from pipeline.scoring import problems
from pipeline.scoring.identity import Register
from pipeline.scoring.judged import Judged
from pipeline.scoring.statistics import mean
from pipeline.scoring.summary import copies, ends, raise_if_all_failed, summarize
from pipeline.skills.curriculum import Curriculum
from pipeline.store.ledger import Ledger
from pipeline.watch.fanout import map_bounded
from pipeline.watch.watchdog import watching

METRICS = {
    "verified_rate": "share of episodes whose problem the committee accepts",
    "difficulty": "1 - Pass@k of the accepted, by the fixed prober",
    "hard_yield_per_1k": "accepted, distinct problems, each weighted by 1 - Pass@k, per 1,000 generated tokens",
    "solved_yield_per_1k": "the same of problems that the prober solves at all, which is what the reward counts",
    "diversity": "1 - mean overlap of word pairs between two accepted problems, numbers and names put aside",
    "solver": "Mean@k of a solver trained on what the arm wrote",
}
SOURCE = {
    "episodes": "written for the solver",
    "tokens": "sampled for them and their probes",
    "problems": "that it learned from",
    "validity": "share of judged episodes that the committee accepts",
}
"""What is told of a data source, beside its solver."""


async def run(
    context: Context, proposer: Path, episodes: int, name: str = "measure", heldout: bool = True
) -> dict[str, Any]:
    """What one arm writes, as the steps of `name`: every metric but the solver's. Without `heldout` the tasks are of
    the combinations that training uses, for what is chosen before anything is measured."""
    curriculum = make_heldout(context) if heldout else make_curriculum(context)
    judged = await _write(context, name, proposer, curriculum, episodes)
    facts = summarize(judged, copies(judged, Register(context.domain.identity)))
    kept = (
        "submitted_rate",
        "difficulty",
        "hard_yield_per_1k",
        "solved_yield_per_1k",
        "unsolved_rate",
        "duplicate_rate",
        "prune_rate",
        "turns",
        "sampled_tokens",
        "failed",
    )
    figures: dict[str, Any] = {"verified_rate": facts["accepted_rate"]} | {name: facts[name] for name in kept}
    questions = [j.episode.submitted.question for j in judged if j.accepted and j.episode.submitted]
    if not questions:
        figures["difficulty"] = None  # of nothing
    figures["diversity"] = diversity(questions)
    return figures


async def solver(context: Context, proposer: Path | None, budget: Budget) -> dict[str, Any]:
    """What an arm's problems are worth to a solver: its `score` (None if there was no problem), and of `SOURCE`. They
    are the data set that `synthesize` makes under the arm's settings, with this proposer over the run's skills (None:
    with whatever the settings name), as far as the budget goes."""
    c = context.config
    given: dict[str, Any] = dict(budget.settings)
    if proposer is not None:
        given |= {"proposer": c.proposer.model_copy(update={"path": str(proposer)})}
        given |= {"skills": str(context.run.path("skills"))}
    config = c.model_copy(update={"synthesize": c.synthesize.model_copy(update=given)})
    context = replace(context, config=config)
    written = await stages.run(context, "synthesize")
    found = {"problems": written["accepted"], **{name: written[name] for name in ("episodes", "tokens", "validity")}}
    if not written["accepted"]:
        return {"score": None, **found}
    return {"score": await _trained(context), **found}


async def untrained(context: Context) -> dict[str, Any]:
    """The `score` of the solver as it is."""
    alone = context.config.evaluate.model_copy(update={"model": context.config.solve.base})
    measured = replace(context, config=context.config.model_copy(update={"evaluate": alone}))
    return {"score": (await stages.run(measured, "evaluate"))["score"]["mean"]}


async def of_generator(context: Context, rows: int) -> dict[str, Any]:
    """The `score` of a solver of as many problems that are sound by construction, none of them of a combination that
    the benchmark has; nobody has probed them, so no band of difficulty is taken of them."""
    if not rows:
        return {"score": None, "problems": 0}
    known, ask = context.domain, 2 * rows
    while True:
        made = known.sound_problems(ask, context.config.seed)
        if len(found := [problem for problem, used in made if not known.is_heldout(used)]) >= rows:
            break
        ask *= 2
    file = context.run.write_text("generator.jsonl", problems.text(found[:rows]))
    own = context.config.solve.model_copy(update={"data": str(file), "mixture": (), "band": (0.0, 1.0)})
    context = replace(context, config=context.config.model_copy(update={"solve": own}))
    return {"score": await _trained(context), "problems": rows, "validity": 1.0}


async def _trained(context: Context) -> float:
    await stages.run(context, "solve")
    score: float = (await stages.run(context, "evaluate"))["after"]["mean"]
    return score


def diversity(questions: Sequence[str]) -> float | None:
    """1 - mean Jaccard similarity of the word pairs of two questions; None of fewer than two."""
    shapes = [_pairs(q) for q in questions]
    alike = [len(a & b) / max(len(a | b), 1) for a, b in combinations(shapes, 2)]
    return 1 - mean(alike) if alike else None


def _pairs(question: str) -> frozenset[tuple[str, str]]:
    words = re.findall(r"\w+", re.sub(r"\d+", "0", question))
    words = ["N" if w[0].isupper() else w for w in words]
    return frozenset(pairwise(words))


async def _write(context: Context, name: str, proposer: Path, curriculum: Curriculum, episodes: int) -> list[Judged]:
    """Play and judge `episodes` tasks: one atomic step, so one that was interrupted, or lost a process, is played again
    as a whole."""
    if done := context.run.steps(name):
        return list(judged_in(done[0]))
    return await stages.with_restarts(context, name, lambda: _step(context, name, proposer, curriculum, episodes))


async def _step(context: Context, name: str, proposer: Path, curriculum: Curriculum, episodes: int) -> list[Judged]:
    config, cluster = context.config, context.cluster
    pool, committee, prober = await asyncio.gather(cluster.proposer(proposer), cluster.committee(), cluster.prober())
    ledger = Ledger(context.run, name)
    ledger.begin(1)
    stream = Stream(config, pool, committee, prober, cluster.buffer())
    step = stream.step(ledger)
    fixed = config.prober.ladder[0].path
    # Named alike whatever is measured, so that they have the same seeds.
    tasks = make_tasks(context, curriculum, "measure", 1, groups=episodes, size=1)
    with context.progress.stage(name, episodes, "episode") as progress:
        async with watching(name, config.watchdog_s) as watchdog:
            watchdog.queues = stream.queues

            async def one(task: Any) -> Judged:
                judged = await step.judged(task, fixed)
                progress.advance(1)
                if not judged.failed:
                    watchdog.beat("episodes, verdicts and probes")
                return judged

            judged = await map_bounded(one, tasks, config.synthesize.in_flight)
            raise_if_all_failed(name, judged)
            await stream.clear()
        progress.advance(0, accepted=mean([float(j.accepted) for j in judged if not j.failed]))
    account = await write_step(context, name, 1, ledger, ends(judged, ()), judged=judged)
    stream.committed(step, account)
    return judged
