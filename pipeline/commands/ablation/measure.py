"""What an arm's proposer is worth: what it writes on held-out skill combinations, and what a solver learns from it.

Both parts have a budget in episodes, the same for every arm. Tasks, prober and judges are the same too, given the seed.
Held-out combinations measure the proposer. A solver is trained on problems of the other combinations, because its own
benchmark is made of held-out ones.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

from pipeline import stages
from pipeline.flow.context import Context
from pipeline.flow.steps import judged_in, write_step
from pipeline.flow.stream import Stream
from pipeline.flow.tasks import make_curriculum, make_heldout, make_tasks
from pipeline.scoring import problems
from pipeline.scoring.identity import Register
from pipeline.scoring.judged import Judged
from pipeline.scoring.selection import Selection
from pipeline.scoring.statistics import mean
from pipeline.scoring.summary import copies, ends, raise_if_all_failed, summarize
from pipeline.skills.curriculum import Curriculum
from pipeline.store.digests import MANIFEST
from pipeline.store.identity import identity_of
from pipeline.store.ledger import Ledger
from pipeline.store.manifest import digest_once, seal_folder
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


async def run(context: Context, proposer: Path, episodes: int) -> dict[str, Any]:
    """What one arm writes: every metric but the solver's."""
    judged = await _write(context, "measure", proposer, make_heldout(context), episodes)
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


async def solver(context: Context, proposer: Path, episodes: int) -> float | None:
    """The score of a solver trained on the distinct, solved problems of so many episodes; None if none was accepted."""
    if context.run.result("synthesize") is None:
        judged = await _write(context, "synthesize", proposer, make_curriculum(context), episodes)
        selection = Selection(context.domain, Register(context.domain.identity))
        selection.take(judged)
        chosen = selection.chosen
        context.run.write_text("dataset/problems.jsonl", problems.text(j.problem for j in chosen if j.problem))
        made_from = {
            f"steps/synthesize/{s.name}": digest_once(s / MANIFEST)[1] for s in context.run.steps("synthesize")
        }
        seal_folder(
            context.run.path("dataset"), "dataset", ["problems.jsonl"], problems=len(chosen),
            run=identity_of(context.config), made_from=made_from,
        )  # fmt: skip
        context.run.finish("synthesize", {"accepted": len(chosen), "episodes": episodes}, 0.0)
    if not context.result_of("synthesize")["accepted"]:
        return None
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
    tasks = make_tasks(context, curriculum, name, 1, groups=episodes, size=1)
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
