"""Agentic SFT (PAPER, stage 2): teachers play whole episodes; those whose problem the committee accepts are cloned.
With `sft.data` nobody plays, and the trajectories of that file are cloned.

Collecting goes in steps of `WAVE` episodes, each atomic; training reads their rollouts in seeded epochs. The result,
the last checkpoint, is pi_ref.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from actors.calls import within
from actors.chat_templates import chat_format
from pipeline.flow import trajectories
from pipeline.flow.context import Context
from pipeline.flow.steps import write_step
from pipeline.flow.stream import StepStream, Stream
from pipeline.flow.tasks import make_curriculum, make_tasks
from pipeline.flow.training import spec_for, train_with_progress, trainable
from pipeline.pools.loaders import DatasetLoader
from pipeline.records import Episode, Failure, Rollout, Task, Verdict
from pipeline.scoring.judged import Judged
from pipeline.scoring.statistics import mean
from pipeline.scoring.summary import ends, raise_if_all_failed
from pipeline.store import accounts, metrics
from pipeline.store.files import writing
from pipeline.store.ledger import Ledger
from pipeline.store.manifest import seal_folder
from pipeline.store.tables import read_keyed, read_records, write_records
from pipeline.watch.fanout import map_bounded
from pipeline.watch.gauges import showing
from pipeline.watch.watchdog import watching

WAVE = 200


async def run(context: Context) -> dict[str, Any]:
    trainable("proposer", context.config.proposer)
    base = context.domain.model(context.config.proposer.path)
    files, played, accepted = await _taught(context) if context.config.sft.data is None else _given(context, base)
    sft = context.config.sft
    loader = context.cluster.actor(DatasetLoader, files, sft.batch, sft.epochs, context.seed("sft"))
    total = await within(loader.steps.remote(), "dataset loader", 60)
    spec = spec_for(context, "sft", base, total)
    summary = await train_with_progress(context, "sft", spec, loader, total)
    losses = [row["loss"] for row in metrics.read(context.run)["sft"]]
    return {
        "trajectories": played,
        "accepted": accepted,
        "validity": accepted / played,
        "steps": total,
        "loss_first": losses[0],
        "loss_last": losses[-1],
        "checkpoint": str(summary.checkpoint),
    }


Trajectories = tuple[list[str], int, int]
"""Files of rollouts, how many trajectories there were, and how many of them are in the files."""


def _given(context: Context, base: Path) -> Trajectories:
    """Those of `sft.data`."""
    path = context.domain.resolve(context.config.sft.data or "")
    rollouts, left_out = trajectories.read(path, chat_format(base), context.config.episode.limits.max_tokens)
    if left_out:
        context.progress.say("sft", f"{left_out} left out, longer than episode.limits.max_tokens")
    file = context.run.path("trajectories", "given.parquet")
    file.parent.mkdir(parents=True, exist_ok=True)
    with writing(file):
        write_records(file, rollouts, Rollout)
        seal_folder(file.parent, "trajectories", [file.name])
    return [str(file)], len(rollouts) + left_out, len(rollouts)


async def _taught(context: Context) -> Trajectories:
    """Those that the teacher plays and the committee accepts."""
    context.result_of("acquire")
    await _collect(context)
    steps = context.run.steps("sft")
    episodes = [e for s in steps for e in read_records(s / "episodes.parquet", Episode)]
    verdicts = [v for s in steps for v in read_keyed(s / "verdicts.parquet", Verdict).values()]
    accepted = sum(v.accepted for v in verdicts)
    if not accepted:
        raise Failure(
            f"sft: the committee accepted none of {len(episodes)} teacher trajectories; nothing to learn from"
        )
    return [str(s / "rollouts.parquet") for s in steps], len(episodes), accepted


async def _collect(context: Context) -> None:
    wanted = context.config.sft.trajectories
    waves = -(-wanted // WAVE)
    done = len(context.run.steps("sft"))
    context.metrics.log("sft-ledger", done, accounts.check(context.run, "sft"))
    if done == waves:
        return
    teacher, committee = await asyncio.gather(context.cluster.teacher(), context.cluster.committee())
    ledger = Ledger(context.run, "sft")
    stream = Stream(
        context.config, teacher, committee, None, context.cluster.buffer(), played_by=context.config.teacher
    )
    curriculum = make_curriculum(context)

    with context.progress.stage("sft: collect", wanted, "episode", done * WAVE) as progress:
        async with (
            watching("sft: collect", context.config.watchdog_s) as watchdog,
            showing(context.metrics, "sft-now", lambda: stream.now() | watchdog.now()),
        ):
            watchdog.queues = stream.queues
            for wave in range(done + 1, waves + 1):
                size = min(WAVE, wanted - (wave - 1) * WAVE)
                ledger.begin(wave)
                step = stream.step(ledger)
                tasks = make_tasks(context, curriculum, "sft", wave, groups=size, size=1)

                async def one(task: Task, step: StepStream = step) -> Judged:
                    judged = await step.judged(task)
                    progress.advance(1)
                    if not judged.failed:
                        watchdog.beat("teacher episodes and their verdicts")
                    return judged

                judged = await map_bounded(one, tasks, context.config.synthesize.in_flight)
                raise_if_all_failed("sft", judged)
                kept = [j for j in judged if j.accepted]
                rows = [(j.key, [0.0] * len(j.episode.turns), 1.0) for j in kept]
                closed = ends(judged, [j.key for j in kept])
                stream.committed(step, await write_step(context, "sft", wave, ledger, closed, rows=rows, judged=judged))
                progress.advance(0, accepted=mean([float(j.accepted) for j in judged]))
    context.metrics.log("sft-ledger", waves, accounts.check(context.run, "sft"))
    await context.cluster.stop("teacher")
