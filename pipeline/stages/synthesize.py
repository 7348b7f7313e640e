"""Synthesis: the trained proposer writes until the data set has its size.

Work goes in waves of `in_flight` tasks, each one atomic step, under the curriculum as MGPO left it. The data set is
the first `target` accepted, distinct problems in the order of the tasks, so an interrupted run ends with the same data
set and counts nothing twice. `problems.jsonl` is what a solver gets; where each problem came from stands beside it.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.flow.context import Context
from pipeline.flow.steps import judged_in, state_of, write_step
from pipeline.flow.stream import StepStream, Stream
from pipeline.flow.tasks import make_curriculum, make_tasks
from pipeline.records import Failure, Task
from pipeline.scoring import problems
from pipeline.scoring.judged import Judged
from pipeline.scoring.statistics import mean
from pipeline.scoring.summary import copies, ends, pruned, raise_if_all_failed, summarize
from pipeline.skills import probing
from pipeline.store import accounts
from pipeline.store.digests import MANIFEST
from pipeline.store.identity import identity_of
from pipeline.store.ledger import Ledger
from pipeline.store.manifest import digest_once, seal_folder
from pipeline.store.rundir import RunDir
from pipeline.watch.fanout import map_bounded
from pipeline.watch.gauges import showing
from pipeline.watch.watchdog import watching


async def run(context: Context) -> dict[str, Any]:
    checkpoint = Path(context.result_of("mgpo")["checkpoint"])
    state = state_of(context.run.steps("mgpo")[-1])
    await _fill(context, checkpoint, state)
    return export(context.run, context.config)


async def _fill(context: Context, checkpoint: Path, state: dict[str, Any]) -> None:
    config = context.config
    target, size = config.synthesize.target, config.synthesize.in_flight
    curriculum = make_curriculum(context)
    curriculum.restore(state["curriculum"])
    prober = probing.prober(probing.Ladder.model_validate(state["ladder"]), config.prober)

    done = context.run.steps("synthesize")
    context.metrics.log("synthesize-ledger", len(done), accounts.check(context.run, "synthesize"))
    seen = {j.verdict.problem_id for j, _ in _played(context.run) if j.verdict and j.accepted}
    if len(seen) >= target:
        return
    proposer, committee, pool = await asyncio.gather(
        context.cluster.proposer(checkpoint), context.cluster.committee(), context.cluster.prober()
    )
    isolation = await context.cluster.sandbox_stats()
    assert isolation is not None  # the committee has it
    ledger = Ledger(context.run, "synthesize")
    stream = Stream(config, proposer, committee, pool, context.cluster.buffer())
    with context.progress.stage("synthesize", target, "problem", len(seen)) as progress:
        async with (
            watching("synthesize", config.watchdog_s) as watchdog,
            showing(context.metrics, "synthesize", stream.now),
        ):
            watchdog.queues = stream.queues
            wave = len(done)
            while len(seen) < target:
                wave += 1
                if (wave - 1) * size >= config.synthesize.max_episodes:
                    raise Failure(
                        f"synthesize: {len(seen)} of {target} problems after synthesize.max_episodes "
                        f"({config.synthesize.max_episodes}); raise it, or train the proposer further"
                    )
                watchdog.beat(f"wave {wave} of episodes")
                ledger.begin(wave)
                step = stream.step(ledger)
                tasks = make_tasks(context, curriculum, "synthesize", wave, groups=size, size=1)

                async def one(
                    task: Task, step: StepStream = step, waiting_for: str = f"wave {wave} of episodes"
                ) -> Judged:
                    judged = await step.judged(task, prober)
                    if not judged.failed:
                        watchdog.beat(waiting_for)
                    return judged

                judged = await map_bounded(one, tasks, size)
                raise_if_all_failed("synthesize", judged)
                await step.clear()
                before = len(seen)
                facts = summarize(judged, copies(judged, seen))
                facts |= await step.spot_check(judged, context.domain, context.seed("synthesize", wave, "spot"))
                account = await write_step(
                    context, "synthesize", wave, ledger, ends(judged, ()), judged=judged,
                    state={"sandbox_level": isolation["level"]}, facts=facts | {"accepted": len(seen)},
                )  # fmt: skip
                stream.committed(step, account)
                progress.advance(min(len(seen), target) - min(before, target), accepted=facts["accepted_rate"])
    context.metrics.log("synthesize-ledger", wave, accounts.check(context.run, "synthesize"))


def _played(run: RunDir) -> Iterator[tuple[Judged, str]]:
    """Everything on disk, in the order of the tasks, and the level of the sandbox that it was judged with."""
    for folder in run.steps("synthesize"):
        level = state_of(folder)["sandbox_level"]
        for j in judged_in(folder):
            yield j, level


def export(run: RunDir, config: Config) -> dict[str, Any]:
    """Write the data set of the steps on disk, and the manifest that names what it was made from; returns the stage's
    result."""
    played = list(_played(run))
    distinct: dict[str, tuple[Judged, str]] = {}
    for j, level in played:
        if j.accepted and j.verdict and j.probe:
            distinct.setdefault(j.verdict.problem_id, (j, level))
    chosen = list(distinct.values())[: config.synthesize.target]
    submitted = [j.episode.submitted for j, _ in chosen if j.episode.submitted]
    run.write_text("dataset/problems.jsonl", problems.text(submitted))
    origins = [json.dumps(_provenance(*one), ensure_ascii=False) + "\n" for one in chosen]
    run.write_text("dataset/provenance.jsonl", "".join(origins))
    seal_folder(
        run.path("dataset"), "dataset", ("problems.jsonl", "provenance.jsonl"),
        problems=len(chosen), run=identity_of(config), made_from=_made_from(run),
    )  # fmt: skip
    facts = summarize([j for j, _ in played])
    return {
        "accepted": len(chosen),
        "distinct": len({j.verdict.problem_id for j, _ in chosen if j.verdict}),
        "episodes": len(played),
        "validity": facts["accepted_rate"],
        "prune_rate": facts["prune_rate"],
        "mean_pass_at_k": mean([j.probe.pass_at_k for j, _ in chosen if j.probe]),
        "mean_difficulty": mean([1 - j.probe.pass_at_k for j, _ in chosen if j.probe]),
        "by_category": dict(sorted(Counter(j.episode.task.category for j, _ in chosen).items())),
    }


def _made_from(run: RunDir) -> dict[str, str]:
    """Digests of the manifests of what the data set follows from: skills, proposer, steps."""
    made = [run.path("skills", MANIFEST), *(step / MANIFEST for step in run.steps("synthesize"))]
    done = run.result("mgpo")
    if done is not None:
        made += sorted(Path(done["result"]["checkpoint"]).glob("trainer/manifest-*.json"))
    return {_within(run, path): digest_once(path)[1] for path in made if path.is_file()}


def _within(run: RunDir, path: Path) -> str:
    return path.relative_to(run.root).as_posix() if path.is_relative_to(run.root) else str(path)


def _provenance(j: Judged, sandbox_level: str) -> dict[str, Any]:
    assert j.episode.submitted is not None and j.verdict is not None and j.probe is not None
    return {
        "id": j.episode.submitted.id,
        "category": j.episode.task.category,
        "answer_kind": j.episode.submitted.answer_kind,
        "skills": [s.id for s in j.episode.task.skills],
        "active": list(j.episode.active),
        "episode_id": j.episode.id,
        "policy_versions": list(j.episode.policy_versions),
        "prober": j.probe.prober,
        "pass_at_k": j.probe.pass_at_k,
        "votes": [v.model_dump(mode="json") for v in j.verdict.votes],
        "pruned": pruned(j.episode),
        "turns": len(j.episode.turns),
        "sandbox_level": sandbox_level,
    }
