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
from pipeline import domains
from pipeline.config import Config
from pipeline.flow.context import Context
from pipeline.records import Episode, Probe, Verdict
from pipeline.scoring.identity import Register
from pipeline.scoring.judged import Judged
from pipeline.scoring.summary import copies
from pipeline.store.ledger import End, Key, Ledger
from pipeline.store.manifest import Damage, verified
from pipeline.store.pairs import Pairs
from pipeline.store.rundir import RunDir
from pipeline.store.tables import read_keyed, read_records, write_keyed, write_records

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
            write_keyed(folder / "verdicts.parquet", {j.key: j.verdict for j in judged if j.verdict}, Verdict)
            write_keyed(folder / "probes.parquet", {j.key: j.probe for j in judged if j.probe}, Probe)
        account = ledger.segment(folder, ends)
        (folder / "state.json").write_text(json.dumps({**(state or {}), "ledger": account}))
        if facts is not None:
            context.metrics.log(stage, number, dict(facts))
    ledger.commit(account)
    return account


def state_of(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(verified(folder / "state.json").read_text(encoding="utf-8"))
    return state


def register_of(run: RunDir, config: Config, stages: Sequence[str]) -> Register:
    """The problems that these stages of the run have written, a step after another. Skeletons are counted of the last
    of them: what a teacher wrote often is no reason to pay its pupil less for it."""
    register = Register(domains.of(config.domain).identity)
    for stage in stages:
        register.counts.clear()
        for folder in run.steps(stage):
            register.fade(config.reward.memory)
            copies(judged_in(folder), register)
    return register


def judged_in(folder: Path) -> Iterator[Judged]:
    """What a step directory holds, in the order of its tasks. Raises Damage where a verdict or probe is missing, or is
    of another attempt or problem."""
    verdicts = read_keyed(folder / "verdicts.parquet", Verdict)
    probes = read_keyed(folder / "probes.parquet", Probe)
    episodes = read_records(folder / "episodes.parquet", Episode)
    for wrong in Pairs.of(episodes, verdicts, probes).wrong():
        raise Damage(folder, wrong)
    for episode in episodes:
        key = (episode.id, episode.attempt)
        yield Judged(episode, verdicts.get(key), probes.get(key))
