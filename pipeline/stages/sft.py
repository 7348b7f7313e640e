"""Agentic SFT (PAPER, stage 2): teachers play whole episodes; those whose problem the committee accepts are cloned, so
many of each style and category, and with them examples of extraction (`sft.extraction`, L_skill-acq of stage 1). With
`sft.data` nobody plays, and the trajectories of that file are cloned.

Collecting goes in steps of `STEP` episodes, each atomic, with no wait between them (flow/window.py); training reads
their rollouts in seeded epochs. The result, the last checkpoint, is pi_ref.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actors.calls import within
from actors.chat_templates import chat_format
from actors.teacher import pick
from pipeline.flow import extraction_lessons, trajectories
from pipeline.flow.context import Context
from pipeline.flow.steps import judged_in, write_step
from pipeline.flow.stream import Stream
from pipeline.flow.tasks import make_curriculum, make_tasks
from pipeline.flow.training import spec_for, train_with_progress, trainable
from pipeline.flow.window import OpenStep, Window
from pipeline.pools.loaders import DatasetLoader
from pipeline.records import Failure, Task
from pipeline.scoring import styles
from pipeline.scoring.judged import Judged
from pipeline.scoring.statistics import mean
from pipeline.scoring.summary import ends, raise_if_all_failed
from pipeline.skills.extraction import SkillLibrary
from pipeline.store import accounts, metrics
from pipeline.store.ledger import Ledger
from pipeline.watch.gauges import showing
from pipeline.watch.progress import Handle
from pipeline.watch.watchdog import Watchdog, watching

STEP = 200
"""Episodes of a step of collecting."""


async def run(context: Context) -> dict[str, Any]:
    trainable("proposer", context.config.proposer)
    base = context.domain.model(context.config.proposer.path)
    files, played, accepted, taught = (
        await _taught(context, base) if context.config.sft.data is None else _given(context, base)
    )
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
        **taught,
        "steps": total,
        "loss_first": losses[0],
        "loss_last": losses[-1],
        "checkpoint": str(summary.checkpoint),
    }


Trajectories = tuple[list[str], int, int, dict[str, Any]]
"""Files of rollouts, how many trajectories there were, how many of them were accepted, and what more is told."""
_NOT_TAUGHT: dict[str, Any] = {"cloned": None, "extraction": 0, "styles": {}, "by_teacher": {}, "rejected": {}}
_REASONS = 20


def _given(context: Context, base: Path) -> Trajectories:
    """Those of `sft.data`."""
    path = context.domain.resolve(context.config.sft.data or "")
    rollouts, left_out = trajectories.read(path, chat_format(base), context.config.episode.limits.max_tokens)
    if left_out:
        context.progress.say("sft", f"{left_out} left out, longer than episode.limits.max_tokens")
    file = trajectories.write(context.run, "sft", "given", rollouts)
    return [str(file)], len(rollouts) + left_out, len(rollouts), _NOT_TAUGHT | {"cloned": len(rollouts)}


async def _taught(context: Context, base: Path) -> Trajectories:
    """Those that the teacher plays and the committee accepts, and with them examples of extraction."""
    context.result_of("acquire")
    await _collect(context)
    steps = context.run.steps("sft")
    judged = [j for step in steps for j in judged_in(step)]
    accepted = sum(j.accepted for j in judged)
    if not accepted:
        raise Failure(f"sft: the committee accepted none of {len(judged)} teacher trajectories; nothing to learn from")
    files, taught = [str(step / "rollouts.parquet") for step in steps], _told(context, judged)
    if n := extraction_lessons.wanted(taught["cloned"], context.config.sft.extraction):
        file, taught["extraction"] = extraction_lessons.write(context, n, chat_format(base))
        files.append(str(file))
    return files, len(judged), accepted, taught


def _told(context: Context, judged: Sequence[Judged]) -> dict[str, Any]:
    """Who played what, in which styles, and why the others were not accepted or not cloned."""
    cells: Counter[styles.Cell] = Counter()
    cloned = {j.key for j in styles.kept(judged, cells, _most(context))}
    found: dict[str, dict[str, int]] = {}
    taught = list(context.config.teacher.each().values())
    weights = [weight for weight, _ in taught]
    by_teacher: dict[str, dict[str, int]] = {}
    rejected: Counter[str] = Counter()
    for j in judged:
        name = taught[pick(weights, j.episode.task.seed)][1].called
        for counts in (
            found.setdefault(styles.style(j.episode), {"played": 0, "accepted": 0, "cloned": 0}),
            by_teacher.setdefault(name, {"played": 0, "accepted": 0, "cloned": 0}),
        ):
            counts["played"] += 1
            counts["accepted"] += j.accepted
            counts["cloned"] += j.key in cloned
        if reason := styles.rejection(j) or ("" if j.key in cloned else styles.FULL):
            rejected[reason] += 1
    rest = sum(rejected.values()) - sum(n for _, n in rejected.most_common(_REASONS))
    reasons = dict(rejected.most_common(_REASONS)) | ({"other reasons": rest} if rest else {})
    told = {"styles": found, "by_teacher": by_teacher, "rejected": reasons}
    return _NOT_TAUGHT | {"cloned": len(cloned)} | told


def _most(context: Context) -> int | None:
    categories = {skill.category for skill in SkillLibrary.load(context.run.path("skills"))}
    return styles.most(context.config.sft, len(categories))


async def _collect(context: Context) -> None:
    wanted = context.config.sft.trajectories
    steps = -(-wanted // STEP)
    done = len(context.run.steps("sft"))
    context.metrics.log("sft-ledger", done, accounts.check(context.run, "sft"))
    if done == steps:
        return
    teacher, committee = await asyncio.gather(context.cluster.teacher(), context.cluster.committee())
    played_by = [section for _, section in context.config.teacher.each().values()]
    stream = Stream(context.config, teacher, committee, None, context.cluster.buffer(), played_by=played_by)
    with context.progress.stage("sft: collect", wanted, "episode", done * STEP) as progress:
        async with (
            watching("sft: collect", context.config.watchdog_s) as watchdog,
            showing(context.metrics, "sft-now", lambda: stream.now() | watchdog.now()),
        ):
            watchdog.queues = stream.queues
            await _Collection(context, stream, watchdog, progress).run()
    context.metrics.log("sft-ledger", steps, accounts.check(context.run, "sft"))
    await context.cluster.stop_teaching()


class _Collection(Window):
    """Steps of `STEP` episodes each, until there are as many as are to be collected."""

    def __init__(self, context: Context, stream: Stream, watchdog: Watchdog, progress: Handle):
        done = context.run.steps("sft")
        super().__init__(stream, context.config.synthesize.in_flight, len(done))
        self._context, self._watchdog, self._progress = context, watchdog, progress
        self._curriculum = make_curriculum(context)
        self._limit, self._cells = _most(context), Counter[styles.Cell]()
        for folder in done:
            styles.kept(list(judged_in(folder)), self._cells, self._limit)

    def begin(self, number: int) -> OpenStep | None:
        size = min(STEP, self._context.config.sft.trajectories - (number - 1) * STEP)
        if size <= 0:
            return None
        ledger = Ledger(self._context.run, "sft")
        ledger.begin(number)
        tasks = make_tasks(self._context, self._curriculum, "sft", number, groups=size, size=1)
        return OpenStep(number, tasks, ledger, self.stream.step(ledger))

    async def play(self, step: OpenStep, task: Task) -> Judged:
        judged = await step.stream.judged(task)
        self._progress.advance(1)
        if not judged.failed:
            self._watchdog.beat("teacher episodes and their verdicts")
        return judged

    async def commit(self, step: OpenStep) -> None:
        judged = step.taken
        raise_if_all_failed("sft", judged)
        kept = styles.kept(judged, self._cells, self._limit)
        keys = {j.key for j in kept}
        rows = [(j.key, [0.0] * len(j.episode.turns), 1.0) for j in kept]
        account = await write_step(
            self._context, "sft", step.number, step.ledger, ends(judged, keys), rows=rows, judged=judged
        )
        self.stream.committed(step.stream, account)
        await step.stream.drop([j for j in judged if j.key not in keys])
        self._progress.advance(0, accepted=mean([float(j.accepted) for j in judged]))
