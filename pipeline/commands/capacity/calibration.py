"""Times from a run: what its journals say of each attempt's way through the pools, its episodes of tokens and programs,
its metrics of the trainer.

Measured: when each attempt was issued, and the seconds that it spent at each pool after that (`judged` lines of the
journal); the seconds of its programs; tokens; what was accepted, solved, and a copy; the trainer's seconds and tokens.
Inferred: how much calls slow each other, as the slowdown under which equal work looks most equal (tokens in the
proposer, samples in the prober, problems in the committee), and from that what each call would have taken alone.
Assumed: pools without GPUs on one machine slow each other too, others do not; replicas of a pool had equal shares;
programs of judges count as the committee's time, and a program's seconds are its own; trainer workers share the tokens
out evenly.

Invariant: with its own counts, a simulation of these times has the run's calls, in its order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.commands.capacity.layout import layout, on_one_machine
from pipeline.commands.capacity.times import SHARED, Kind, Times, Trace
from pipeline.config import Config
from pipeline.flow.steps import judged_in
from pipeline.records import Failure
from pipeline.scoring.judged import Judged
from pipeline.store import metrics
from pipeline.store.ledger import Journal, Key, journal_path
from pipeline.store.rundir import RunDir

STAGES = ("mgpo", "synthesize")
_COSTS = (0.0, 0.001, 0.002, 0.004, 0.007, 0.01, 0.015, 0.02, 0.03, 0.045, 0.07, 0.1, 0.15, 0.22, 0.33, 0.5, 0.75, 1.0)
"""Slowdowns tried."""
_PASSES = 4

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Way:
    """An attempt that came back: where it was, from when to when, and what it was."""

    spans: Mapping[Kind, tuple[float, float]]
    judged: Judged


@dataclass(frozen=True)
class Step:
    """One that is on disk."""

    ways: Sequence[Way]
    began: float
    back: float
    """When the last attempt came back."""
    ended: float


@dataclass(frozen=True)
class Recorded:
    """What a stage of a run did, without its first step where it has others: engines warm up in it."""

    steps: Sequence[Step]

    @property
    def before(self) -> list[float]:
        """When the step before each had ended: steps that overlap are written in their order."""
        return [0.0, *(step.ended for step in self.steps[:-1])]

    @property
    def ways(self) -> list[Way]:
        return [way for step in self.steps for way in step.ways]

    @property
    def seconds(self) -> float:
        return self.steps[-1].ended - self.steps[0].began


def recorded(run: RunDir, stage: str) -> Recorded:
    """What the journals tell of; an earlier version's say nothing of the pools. Raises Damage."""
    steps: list[Step] = []
    for folder in run.steps(stage):
        journal = Journal.read(journal_path(run, stage, int(folder.name)))
        issued = {_key(e): e["time"] for e in journal.events if e["event"] == "issue"}
        back = {_key(e): e for e in journal.events if e["event"] == "judged"}
        committed = [e["time"] for e in journal.events if e["event"] == "commit"]
        ways = [
            Way(_spans(issued[judged.key], back[judged.key]), judged)
            for judged in judged_in(folder)
            if judged.key in back and not judged.failed
        ]
        ways = [way for way in ways if "proposer" in way.spans]
        if ways and committed:
            last = max(e["time"] for e in back.values())
            steps.append(Step(ways, min(issued.values()), last, committed[-1]))
    return Recorded(steps[1:] or steps)


def _key(event: Mapping[str, Any]) -> Key:
    return event["id"], event["attempt"]


def _spans(issued: float, back: Mapping[str, Any]) -> dict[Kind, tuple[float, float]]:
    spans: dict[Kind, tuple[float, float]] = {}
    for kind in SHARED:
        seconds = back.get(f"{kind}_s")
        if seconds is not None:
            spans[kind] = (issued, issued + seconds)
            issued += seconds
    return spans


def calibrate(run: RunDir, config: Config, stage: str) -> Times:
    """Times of a stage, as the run that `config` made had them. Raises Failure."""
    found = recorded(run, stage)
    if not found.steps:
        raise Failure(
            f"run directory {run.root}: no step of {stage} whose journal tells the seconds at each pool; expected a "
            f"run that has done {stage}, with this version of the project"
        )
    machines = {kind: group.machines for group in layout(config, stage) for kind in group.seats}
    alone, slowdown = _inferred(found.ways, machines, beside=on_one_machine(config, stage))
    traces = [_trace(way, {kind: alone[kind][i] for kind in way.spans}) for i, way in enumerate(found.ways)]
    kept = [i for i, trace in enumerate(traces) if trace.kept]
    copies = round(len(kept) * _copied(run, stage))
    for number in range(copies):  # which of them are, no file tells: one here and there
        copy = kept[number * len(kept) // copies]
        traces[copy] = traces[copy]._replace(kept=False)
    token_s, step_s = _trainer(run, stage)
    return Times(
        traces,
        slowdown,
        token_s,
        step_s,
        median(step.ended - max(step.back, before) for step, before in zip(found.steps, found.before, strict=True)),
        config.trainer.workers,
        as_they_came=True,
    )


def _trace(way: Way, alone: Mapping[Kind, float]) -> Trace:
    """The engine's seconds are shared out over the turns by their tokens; a turn with a program ends there."""
    episode = way.judged.episode
    tokens = max(1, sum(turn.end - turn.start for turn in episode.turns))
    turns, engine = [], 0.0
    for turn in episode.turns:
        engine += alone["proposer"] * (turn.end - turn.start) / tokens
        if turn.tool is not None and turn.tool.wall_s > 0:
            turns.append((engine, turn.tool.wall_s))
            engine = 0.0
    return Trace(
        (*turns, (engine if episode.turns else alone["proposer"], 0.0)),
        alone.get("committee"),
        alone.get("prober"),
        way.judged.solved,
        episode.sampled_tokens,
    )


def _programs_s(way: Way) -> float:
    return sum(turn.tool.wall_s for turn in way.judged.episode.turns if turn.tool is not None)


# ---------------------------------------------------------------- how much calls slow each other


def _inferred(
    ways: Sequence[Way], machines: Mapping[Kind, int], beside: bool
) -> tuple[dict[Kind, Floats], dict[Kind, dict[Kind, float]]]:
    """Pool -> seconds alone of each attempt (0 where it was not there), and the slowdowns. `machines`: that a pool's
    calls are shared out over; `beside`: calls of other pools count as well."""
    spans = {kind: np.array([way.spans.get(kind, (np.nan, np.nan)) for way in ways]) for kind in SHARED}
    times = np.unique(np.concatenate([s[~np.isnan(s)] for s in spans.values()]))
    loads = {kind: _load(times, s[~np.isnan(s[:, 0])]) / machines[kind] for kind, s in spans.items()}
    sizes: dict[Kind, Floats] = {
        "proposer": np.array([max(1, way.judged.episode.sampled_tokens) for way in ways], float),
        "committee": np.ones(len(ways)),
        "prober": np.array([_samples(way) for way in ways], float),
    }
    shares = np.array([max(0.0, 1 - _programs_s(way) / max(_length(way.spans["proposer"]), 1e-9)) for way in ways])
    alone: dict[Kind, Floats] = {}
    slowdown: dict[Kind, dict[Kind, float]] = {}
    for kind in SHARED:
        there = ~np.isnan(spans[kind][:, 0])
        if not there.any():
            alone[kind], slowdown[kind] = np.zeros(len(ways)), {}
            continue
        of = [q for q in SHARED if q == kind or (beside and loads[q].any())]
        began, ended = spans[kind][there, 0], spans[kind][there, 1]
        costs = fit(times, loads, kind, of, began, ended, sizes[kind][there])
        found = np.zeros(len(ways))
        found[there] = work_done(times, loads, kind, costs, began, ended)
        alone[kind], slowdown[kind] = found * (shares if kind == "proposer" else 1.0), costs
    return alone, slowdown


def _length(span: tuple[float, float]) -> float:
    return span[1] - span[0]


def _samples(way: Way) -> int:
    probe = way.judged.probe
    return 1 if probe is None else max(1, probe.n + sum(w.judged + w.unknown for w in probe.weaker))


def _load(times: Floats, spans: Floats) -> Floats:
    """Calls under way in each interval between two of the times."""
    change: Floats = np.zeros(len(times))
    np.add.at(change, np.searchsorted(times, spans[:, 0]), 1)
    np.add.at(change, np.searchsorted(times, spans[:, 1]), -1)
    return np.asarray(np.cumsum(change)[:-1])


def work_done(
    times: Floats, loads: Mapping[Kind, Floats], kind: Kind, costs: Mapping[Kind, float], began: Floats, ended: Floats
) -> Floats:
    """The integral of the pace of each call from its begin to its end."""
    slow = np.ones(len(times) - 1)
    for other, cost in costs.items():
        slow += cost * np.maximum(0.0, loads[other] - (other == kind))
    done = np.concatenate([[0.0], np.cumsum(np.diff(times) / slow)])
    return np.asarray(np.interp(ended, times, done) - np.interp(began, times, done))


def fit(
    times: Floats,
    loads: Mapping[Kind, Floats],
    kind: Kind,
    of: Sequence[Kind],
    began: Floats,
    ended: Floats,
    sizes: Floats,
) -> dict[Kind, float]:
    """The slowdowns under which work for its size varies least: what is left of its variation does not come from what
    was beside it. One at a time, from none."""

    def unequal(costs: Mapping[Kind, float]) -> float:
        each = work_done(times, loads, kind, costs, began, ended) / sizes
        return float(np.std(each)) / max(float(np.mean(each)), 1e-12)

    costs: dict[Kind, float] = dict.fromkeys(of, 0.0)
    for _ in range(_PASSES):
        for other in of:
            costs = min((costs | {other: cost} for cost in _COSTS), key=unequal)
    return costs


# ---------------------------------------------------------------- the rest


def _copied(run: RunDir, stage: str) -> float:
    """Share of the accepted problems that are copies."""
    rates = metrics.values(run, stage, "duplicate_rate")
    return sum(rates) / len(rates) if rates else 0.0


def _trainer(run: RunDir, stage: str) -> tuple[float, float]:
    """Seconds of training a token, and from the optimizer's step to its version being served, the median."""
    rows = metrics.read(run)
    trained = [row for row in rows.get(f"{stage}-train", []) if row.get("train/tokens")]
    if not trained:
        return 0.0, 0.0
    served = [row["step_to_serving_s"] for row in rows.get(f"{stage}-weights", []) if "step_to_serving_s" in row]
    seconds, tokens = (sum(row[name] for row in trained) for name in ("train/time/train_s", "train/tokens"))
    return seconds / tokens, median(served) if served else 0.0
