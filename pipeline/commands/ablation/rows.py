"""What every (arm, seed) of a grid came to, as rows: `rows.jsonl`, a line each, seed by seed.

Invariant: the rows are what the finished runs below the root say, whichever call made them, ordered by seed and then as
the grid orders its arms. A finished seed's lines stay as they are, so a file of more seeds begins with that of fewer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from pipeline.commands.ablation import rounds
from pipeline.commands.ablation.grid import ARMS, COMPARISONS, ROUNDS
from pipeline.commands.ablation.measure import METRICS
from pipeline.config import loading
from pipeline.store import metrics
from pipeline.store.rundir import RunDir

FILE = "rows.jsonl"
BY_TOKENS = tuple(name for name, c in COMPARISONS.items() if c.by_tokens)
"""Comparisons whose arms are also measured at equal tokens, each in a stage `measure-<name>`."""
_SHARED = {"acquire", "sft"}
"""Stages that an arm was given, and whose time is not its own."""

Row = dict[str, Any]


def read(root: Path) -> list[Row]:
    """Of all finished (arm, seed) below the root of an ablation."""
    return [row for seed in _seeds(root) for arm in ARMS if (row := _row(root, arm, seed)) is not None]


def write(root: RunDir) -> list[Row]:
    found = read(root.root)
    root.write_text(FILE, "".join(json.dumps(row) + "\n" for row in found))
    return found


def sampled(run: RunDir) -> list[int]:
    """Tokens that training has sampled by the end of each of its steps; none where the line of one is lost."""
    found, done = metrics.read(run).get("mgpo", []), run.steps("mgpo")
    if [row["step"] for row in found] != list(range(1, len(done) + 1)):
        return []
    return list(accumulate(int(row["sampled_tokens"]) for row in found))


def played(root: Path, arm: str, seed: int) -> list[Path]:
    """The rounds of an arm that is played in some."""
    return [root / "arms" / arm / str(seed) / f"round-{number}" for number in range(1, ROUNDS + 1)]


def _seeds(root: Path) -> list[int]:
    return sorted({int(p.name) for p in (root / "arms").glob("*/*") if p.name.isdigit()})


def _row(root: Path, arm: str, seed: int) -> Row | None:
    if ARMS[arm].gate:
        return _of_rounds([RunDir(path) for path in played(root, arm, seed)], arm, seed)
    run = RunDir(root / "arms" / arm / str(seed))
    measured, downstream = run.result("measure"), run.result("downstream")
    if measured is None and downstream is None:
        return None
    source = dict(downstream["result"]) if downstream else {}
    figures = dict.fromkeys(METRICS) | (measured["result"] if measured else {}) | {"solver": source.pop("score", None)}
    tokens = sampled(run)
    row = {"seed": seed, "arm": arm, "figures": figures, "source": source, "minutes": _minutes([run])}
    if tokens:
        row |= {"training_tokens": tokens[-1], "lr": loading.load(run.path("config.yaml")).mgpo.lr}
    equal = {name: done["result"] for name in BY_TOKENS if (done := run.result(f"measure-{name}"))}
    return row | ({"equal_tokens": equal} if equal else {})


def _of_rounds(runs: Sequence[RunDir], arm: str, seed: int) -> Row | None:
    done = [run.result("round") for run in runs]
    results = [d["result"] for d in done if d]
    if len(results) < len(runs):
        return None
    kept = [{name: r[name] for name in (*rounds.ROUND, "before", "tokens", "validity")} for r in results]
    figures = dict.fromkeys(METRICS) | rounds.summary(results)
    return {"seed": seed, "arm": arm, "figures": figures, "source": {}, "rounds": kept, "minutes": _minutes(runs)}


def _minutes(runs: Sequence[RunDir]) -> float:
    """Of the stages that these runs have worked on; what an interrupt threw away is not in it."""
    stages = [json.loads(p.read_text()) for run in runs for p in run.path("stages").glob("*.json")]
    own = [s["wall_s"] for s in stages if s["stage"] not in {*_SHARED, "downstream", "round"}]
    return round(sum(own) / 60, 2)
