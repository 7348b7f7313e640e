"""What a run would do, and what that takes as far as is known: `--dry-run`.

Invariant: only looks. A time is this run's own rate where it has one, else what the stage took in a finished run beside
it, scaled by its units; a figure that nothing says is not known, and is not guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.commands import doctor, memory, preflight, target
from pipeline.commands.tables import columns, duration
from pipeline.config import Config
from pipeline.records import Failure
from pipeline.store import survey
from pipeline.store.rundir import RunDir


def plan(config: Config, root: Path, stages: Sequence[str]) -> dict[str, Any]:
    """The keys are `keys.PLAN_KEYS`."""
    run = RunDir(root)
    reached = {r.stage: r for r in survey.reached(run, config)}
    known = dict(_measured(config, root))
    rows = {}
    for stage in stages:
        r = reached[stage]
        left, by = _left(r, config, known.get(stage))
        do = {"done": "skip", "part done": "resume", "not begun": "run"}[r.status]
        rows[stage] = {"do": do, "done": r.done, "total": r.total, "unit": r.unit, "left_s": left, "by": by}
    refused = []
    try:
        preflight.refuse(config, root)
    except Failure as e:
        refused.append(str(e))
    try:
        refused += [f"{c.name}: {c.found}" for c in preflight.problems(config, root, stages) if c.status == "fail"]
    except Failure as e:
        refused.append(str(e))
    todo = [stage for stage in stages if rows[stage]["do"] != "skip"]
    refused += [f"{c.name}: {c.found}; {c.todo}" for c in doctor.gpus_here(config, todo) if c.status == "fail"]
    return {"run_dir": str(root), "stages": rows, "memory_gb": dict(_memory(config, stages)), "refused": refused}


def _measured(config: Config, root: Path) -> Iterator[tuple[str, tuple[float, Path]]]:
    """Stage -> (seconds a unit, the run that it was measured in), of finished stages of the newest other run beside."""
    others = sorted(target.every(root.absolute().parent), key=lambda other: (other / "config.yaml").stat().st_mtime)
    for other in others:
        if other == root.absolute():
            continue
        try:
            run, settings = RunDir.read(other)
            if type(settings.domain) is type(config.domain):
                for r in survey.reached(run, settings):
                    if r.wall_s is not None and (size := _size(settings, r.stage)):
                        yield r.stage, (r.wall_s / size, other)
        except Failure:  # a run that cannot be read says nothing of time
            continue


def _size(config: Config, stage: str) -> float:
    """What a stage's time grows with."""
    mgpo, solve, evaluate = config.mgpo, config.solve, config.evaluate
    return {
        "acquire": 1.0,
        "sft": config.sft.trajectories * config.sft.epochs,
        "mgpo": mgpo.steps * mgpo.groups * mgpo.group_size,
        "synthesize": config.synthesize.target,
        "solve": solve.steps * solve.problems * solve.group_size,
        "evaluate": evaluate.samples * (evaluate.problems or 1) * (len(evaluate.alone()) or 2),
    }[stage]


def _left(r: survey.Reached, config: Config, known: tuple[float, Path] | None) -> tuple[float | None, str | None]:
    if r.status == "done":
        return 0.0, None
    if r.left_s is not None:
        return r.left_s, "this run"
    if known is None:
        return None, None
    return known[0] * _size(config, r.stage), str(known[1])


def _memory(config: Config, stages: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Pool or trainer -> GB of the machine's memory in the stage where it takes most, as `memory` plans it. What Ray
    and Python need comes on top."""
    found = [process for parts in memory.processes(config, stages, None).values() for process in parts]
    for process in sorted(found, key=lambda process: process.together):
        if process.where == "memory":
            yield process.name, round(process.together * process.count / 1e9, 3)


def render(found: dict[str, Any], shown: Callable[[Path], str]) -> str:
    lines = [f"would work in {shown(Path(found['run_dir']))}; nothing was done"]
    rows = [("stage", "would", "how much", "time")]
    for stage, r in found["stages"].items():
        much = {"skip": "done", "resume": f"from {r['done']}", "run": ""}[r["do"]]
        if r["do"] != "skip" and r["total"] is not None:
            much = f"{much} of {r['total']} {r['unit']}s".strip().removeprefix("of ")
        time = "-" if r["do"] == "skip" else "not known" if r["left_s"] is None else f"about {duration(r['left_s'])}"
        rows.append((stage, r["do"], much or "-", time))
    lines.append(columns(rows))
    todo = [r for r in found["stages"].values() if r["do"] != "skip"]
    if todo and all(r["left_s"] is not None for r in todo):
        lines.append(f"together about {duration(sum(r['left_s'] for r in todo))}")
    if sources := sorted({r["by"] for r in todo if r["by"]}):
        lines.append(f"times as in {', '.join(s if s == 'this run' else shown(Path(s)) for s in sources)}")
    if found["memory_gb"]:
        lines.append("memory, without Ray (not all at a time):")
        lines += [f"  {name}: {gb:g} GB" for name, gb in found["memory_gb"].items()]
    lines += [f"would be refused: {line}" for line in found["refused"]]
    return "\n".join(lines)
