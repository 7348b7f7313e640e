"""A step of a stage, put on disk: once, for every stage, because the order decides what a crash leaves.

    rollouts ► episodes, verdicts, probes ► the ledger's segment ► state ► metrics ► the directory's name ► commit

Invariant: a step directory that has its name is whole, and its journal is on disk. What dies before that has not
happened; what dies between the name and the commit line is committed by whoever opens the journal next.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.calls import within
from pipeline.flow.context import Context
from pipeline.records import Episode, Probe, Verdict
from pipeline.scoring.identity import Register
from pipeline.scoring.judged import Judged
from pipeline.scoring.summary import copies
from pipeline.store.ledger import End, Key, Ledger
from pipeline.store.tables import read_records, write_records

_WRITE_S = 300.0

Row = tuple[Key, Sequence[float], float]
"""A rollout to train on: its key, process rewards (one an action), terminal reward."""


async def write_step(
    context: Context,
    stage: str,
    number: int,
    ledger: Ledger,
    ends: Mapping[Key, End],
    *,
    rows: Sequence[Row] | None = None,
    judged: Sequence[Judged] | None = None,
    state: Mapping[str, Any] | None = None,
    facts: Mapping[str, float] | None = None,
) -> dict[str, int]:
    """Write and commit a step; returns its account.

    `ends`: of every attempt that is open · `rows`: what is trained on, taken from the rollout buffer · `judged`: what
    was played · `state`: what the next steps follow from · `facts`: the step's metrics. Raises Failure if the disk, the
    buffer or the ledger refuses; nothing of the step is on disk then.
    """
    with context.run.new_step(stage, number) as folder:
        if rows is not None:
            await within(context.cluster.buffer().write.remote(str(folder), rows), "rollout buffer", _WRITE_S)
        if judged is not None:
            write_records(folder / "episodes.parquet", [j.episode for j in judged], Episode)
            write_records(folder / "verdicts.parquet", [j.verdict for j in judged if j.verdict], Verdict)
            write_records(folder / "probes.parquet", [j.probe for j in judged if j.probe], Probe)
        account = ledger.segment(folder, ends)
        (folder / "state.json").write_text(json.dumps({**(state or {}), "ledger": account}))
        if facts is not None:
            context.metrics.log(stage, number, dict(facts))
    ledger.commit(account)
    return account


def state_of(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((folder / "state.json").read_text())
    return state


def register_of(context: Context, stages: Sequence[str]) -> Register:
    """The problems that these stages of the run have written, a step after another. Skeletons are counted of the last
    of them: what a teacher wrote often is no reason to pay its pupil less for it."""
    register = Register(context.domain.identity)
    for stage in stages:
        register.counts.clear()
        for folder in context.run.steps(stage):
            register.fade(context.config.reward.memory)
            copies(judged_in(folder), register)
    return register


def judged_in(folder: Path) -> Iterator[Judged]:
    """What a step directory holds, in the order of its tasks."""
    verdicts = iter(read_records(folder / "verdicts.parquet", Verdict))
    probes = iter(read_records(folder / "probes.parquet", Probe))
    for episode in read_records(folder / "episodes.parquet", Episode):
        # In the order they were written: two episodes may have submitted one question, with different answers.
        verdict = next(verdicts) if episode.submitted is not None and episode.outcome.kind == "ok" else None
        yield Judged(episode, verdict, next(probes, None) if verdict and verdict.accepted else None)  # SFT probes none
