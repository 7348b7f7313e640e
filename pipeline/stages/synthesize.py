"""Synthesis: a proposer writes until the data set has its size. In a run it is the one that MGPO trained, alone it is
any checkpoint or endpoint (`synthesize.proposer`), over any skill library (`synthesize.skills`).

Work goes in waves of `in_flight` tasks, each one atomic step, under the curriculum as MGPO left it, if it did. The data
set is the first `target` accepted, distinct problems in the order of the tasks, so an interrupted run ends with the
same data set and counts nothing twice. `problems.jsonl` is what a solver gets; where each problem came from stands
beside it. What was accepted before the stage had to stop (`max_episodes`, a budget) is exported too.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.config import ModelConfig
from pipeline.flow.context import Context
from pipeline.flow.steps import judged_in, state_of, write_step
from pipeline.flow.stream import StepStream, Stream
from pipeline.flow.tasks import make_curriculum, make_tasks
from pipeline.records import Failure, Halt, Task
from pipeline.scoring import problems
from pipeline.scoring.judged import Judged
from pipeline.scoring.statistics import mean
from pipeline.scoring.summary import copies, ends, pruned, raise_if_all_failed, summarize
from pipeline.skills import probing
from pipeline.store import accounts
from pipeline.store.ledger import Ledger
from pipeline.watch.fanout import map_bounded
from pipeline.watch.gauges import showing
from pipeline.watch.watchdog import watching


async def run(context: Context) -> dict[str, Any]:
    writer = _writer(context)
    skills = _skills(context)
    try:
        await _fill(context, writer, skills)
    except (_Enough, Halt) as e:
        accepted = _export(context)["accepted"]
        file = context.run.path("dataset", "problems.jsonl")
        raise Failure(f"synthesize: {e}; the {accepted} problems accepted so far are in {file}") from None
    return _export(context)


class _Enough(Exception):
    """As many episodes as may be played."""


def _writer(context: Context) -> ModelConfig | None:
    """Who writes, if it is not MGPO's policy. Raises Failure where there is neither."""
    config = context.config
    if config.synthesize.proposer is not None:
        return config.synthesize.proposer
    if config.proposer.endpoint is not None:
        return config.proposer
    if context.run.result("mgpo") is None:
        raise Failure(
            f"run directory {context.run.root}: no trained proposer; run `propose mgpo` first, or name one in "
            "synthesize.proposer: {path: a checkpoint} or {endpoint: {base_url: …, model: …}}"
        )
    return None


def _skills(context: Context) -> Path:
    """The skill library that is offered. Raises Failure where there is none."""
    given = context.config.synthesize.skills
    if given is not None:
        return context.domain.resolve(given)
    if not context.run.path("skills").is_dir():
        raise Failure(
            f"run directory {context.run.root}: no skill library; run `propose acquire` first, or name one in "
            "synthesize.skills"
        )
    return context.run.path("skills")


async def _fill(context: Context, writer: ModelConfig | None, skills: Path) -> None:
    config = context.config if writer is None else context.config.model_copy(update={"proposer": writer})
    target, size = config.synthesize.target, config.synthesize.in_flight
    curriculum, ladder = make_curriculum(context, skills), probing.Ladder()
    if trained := context.run.steps("mgpo"):
        state = state_of(trained[-1])
        ladder = probing.Ladder.model_validate(state["ladder"])
        if context.config.synthesize.skills is None:
            curriculum.restore(state["curriculum"])
    prober = probing.prober(ladder, config.prober)

    done = context.run.steps("synthesize")
    context.metrics.log("synthesize-ledger", len(done), accounts.check(context.run, "synthesize"))
    seen = {j.verdict.problem_id for j, _ in _played(context) if j.verdict and j.accepted}
    if len(seen) >= target:
        return
    cluster = context.cluster
    playing = cluster.writer(writer) if writer else cluster.proposer(Path(context.result_of("mgpo")["checkpoint"]))
    proposer, committee, pool = await asyncio.gather(playing, cluster.committee(), cluster.prober())
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
                    raise _Enough(
                        f"{len(seen)} of {target} problems after synthesize.max_episodes "
                        f"({config.synthesize.max_episodes}), raise it, or train the proposer further"
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
                facts |= await step.canaries(judged, context.seed("synthesize", wave, "canary"))
                account = await write_step(
                    context, "synthesize", wave, ledger, ends(judged, ()), judged=judged,
                    state={"sandbox_level": isolation["level"]}, facts=facts | {"accepted": len(seen)},
                )  # fmt: skip
                stream.committed(step, account)
                progress.advance(min(len(seen), target) - min(before, target), accepted=facts["accepted_rate"])
    context.metrics.log("synthesize-ledger", wave, accounts.check(context.run, "synthesize"))


def _played(context: Context) -> Iterator[tuple[Judged, str]]:
    """Everything on disk, in the order of the tasks, and the level of the sandbox that it was judged with."""
    for folder in context.run.steps("synthesize"):
        level = state_of(folder)["sandbox_level"]
        for j in judged_in(folder):
            yield j, level


def _export(context: Context) -> dict[str, Any]:
    played = list(_played(context))
    distinct: dict[str, tuple[Judged, str]] = {}
    for j, level in played:
        if j.accepted and j.verdict and j.probe:
            distinct.setdefault(j.verdict.problem_id, (j, level))
    chosen = list(distinct.values())[: context.config.synthesize.target]
    exported = [j.problem for j, _ in chosen if j.problem]
    context.run.write_text("dataset/problems.jsonl", problems.text(exported))
    origins = [json.dumps(_provenance(*one), ensure_ascii=False) + "\n" for one in chosen]
    context.run.write_text("dataset/provenance.jsonl", "".join(origins))
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
