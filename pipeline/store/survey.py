"""How far a run is, from its disk alone: cheap enough to be asked of many runs, and of one that works at any moment.

Invariant: nothing is written, and no run is taken from the process that holds it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.config import Config
from pipeline.store import events, metrics
from pipeline.store.identity import config_in, refuse_another
from pipeline.store.run_stages import RUN_STAGES
from pipeline.store.rundir import RunDir

_RECENT = 20
"""Steps whose mean time is the rate."""

Status = Literal["done", "part done", "not begun"]


@dataclass(frozen=True)
class Reached:
    """One stage of a run."""

    stage: str
    status: Status
    done: int
    total: int | None
    """None: not known before it is done."""
    unit: str
    rate_s: float | None
    """Seconds a unit of late, the first one, which compiles, left out."""
    wall_s: float | None
    """That it took, if it is done."""

    @property
    def left_s(self) -> float | None:
        if self.status == "done" or self.total is None or self.rate_s is None:
            return None
        return self.rate_s * max(0, self.total - self.done)


def reached(run: RunDir, config: Config) -> list[Reached]:
    """Each stage, in order. Raises Failure for a file that is there and cannot be read."""
    rows = metrics.read(run)
    found = []
    for stage in RUN_STAGES:
        result = run.result(stage)
        unit, done, total, timed = _count(run, config, stage, rows)
        status: Status = (
            "done" if result else "part done" if done or run.path("ledger", stage).is_dir() else "not begun"
        )
        wall_s = float(result["wall_s"]) if result else None
        found.append(Reached(stage, status, done, total, unit, _rate(timed), wall_s))
    return found


def _count(
    run: RunDir, config: Config, stage: str, rows: Mapping[str, list[dict[str, Any]]]
) -> tuple[str, int, int | None, list[tuple[float, int]]]:
    """(unit, done, total, (moment, units done by then) in order) of a stage."""
    steps = len(run.steps(stage))
    mine = rows.get(stage, [])
    times = [(row["time"], row["step"]) for row in mine]
    if stage == "sft":
        trained = max((int(row["trained"]) for row in rows.get("sft-ledger", [])), default=0)
        if mine:
            return "step", mine[-1]["step"], math.ceil(trained / config.sft.batch) * config.sft.epochs, times
        return "episode", _issued(run, stage), config.sft.trajectories, []
    if stage == "mgpo":
        return "step", steps, config.mgpo.steps, times
    if stage == "solve":
        warm = rows.get("solve-warmup", [])
        if warm and not steps and run.result("solve.warmup") is None:
            return "warm-up step", warm[-1]["step"], None, [(row["time"], row["step"]) for row in warm]
        return "step", steps, config.solve.steps, times
    if stage == "synthesize":
        counts = [(row["time"], int(row["accepted"])) for row in mine if "accepted" in row]
        target = config.synthesize.target
        return "problem", min(target, counts[-1][1] if counts else 0), target, counts
    if stage == "evaluate":
        return "model", steps, len(config.evaluate.alone()) or 2, times
    return "shard", steps, None, []  # of documents


def _rate(timed: list[tuple[float, int]]) -> float | None:
    if len(timed) < 2:
        return None
    (start, first), (end, last) = timed[-min(len(timed), _RECENT + 1)], timed[-1]
    return (end - start) / (last - first) if last > first and end > start else None


def _issued(run: RunDir, stage: str) -> int:
    """Attempts that the stage has sent out."""
    folder = run.path("ledger", stage)
    return sum(path.read_bytes().count(b'"event": "issue"') for path in folder.glob("[0-9]*.jsonl"))


def running(run: RunDir, found: list[Reached]) -> tuple[Reached | None, float | None, int | None]:
    """The first stage that is not done, since when a process has worked on it, and which; None where unknown."""
    now = next((r for r in found if r.status != "done"), None)
    starts = [e for e in events.read(run, "stage_started") if now and e["stage"] == now.stage]
    return (now, starts[-1]["time"], starts[-1]["pid"]) if starts else (now, None, None)


def size(root: Path) -> int:
    """Bytes of all files below, those that two runs share counted in each."""
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except FileNotFoundError:  # it was replaced meanwhile
                continue
    return total


def last_sign(root: Path) -> float | None:
    """When the run last wrote something that it always writes: metrics, events, and the accounts of its attempts."""
    paths = (root / metrics.FILE, root / events.FILE, *(root / "ledger").glob("*/*.jsonl"))
    return max((path.stat().st_mtime for path in paths if path.is_file()), default=None)


def finished(config: Config, root: Path, stages: Sequence[str]) -> tuple[RunDir, dict[str, dict[str, Any]]] | None:
    """The run and the results of its stages, if all of them are done. Raises Failure where it is another config's."""
    if not os.path.isfile(root / "config.yaml"):  # unlike Path's, this says no of a name that cannot be
        return None
    run = RunDir.look(root.absolute())
    results = {stage: run.result(stage) for stage in stages}
    if not all(results.values()):
        return None
    refuse_other(config, root)
    return run, {stage: done["result"] for stage, done in results.items() if done}


def refuse_other(config: Config, root: Path) -> None:
    """Raises Failure where the run was made with a config that computes something else."""
    RunDir.read(root)  # raises for a config that the run did not write
    path = root / "config.yaml"
    refuse_another(config_in(str(path), path.read_bytes()), config, f"run directory {root}", "--run-dir")
