"""What runs there are, and how far one is.

Invariant: only reads; a run that cannot be read is listed with the reason.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.commands import target
from pipeline.commands.tables import ago, columns, duration, megabytes
from pipeline.records import Failure
from pipeline.store import events, metrics, survey
from pipeline.store.lock import in_use
from pipeline.store.rundir import RunDir

Shown = Callable[[Path], str]


def runs(folder: Path) -> dict[str, Any]:
    """The keys are `keys.RUNS_KEYS`. Raises Failure where there is no such folder."""
    if not folder.is_dir():
        raise Failure(f"{folder}: no folder; expected one that holds runs")
    return {"folder": str(folder), "runs": [_row(root) for root in target.every(folder)]}


def _row(root: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"name": root.name, "run_dir": str(root), "bytes": survey.size(root)}
    row |= {"begun": (root / "config.yaml").stat().st_mtime, "last_sign": survey.last_sign(root)}
    try:
        run, config = RunDir.read(root)
        found = survey.reached(run, config)
    except Failure as e:
        return row | {"stage": None, "state": "unreadable", "why": str(e)}
    state, now = _state(root, found), next((r for r in found if r.status != "done"), None)
    return row | {"stage": now.stage if now and state != "done" else None, "state": state, "why": None}


def _state(root: Path, found: list[survey.Reached]) -> str:
    if in_use(root):
        return "running"
    if all(r.status == "done" for r in found) or _alone(found):
        return "done"
    return "stopped" if any(r.status != "not begun" for r in found) else "not begun"


def _alone(found: list[survey.Reached]) -> bool:
    """Stages were done by themselves, without those before them, and none is left half done."""
    reached = [r.status for r in found]
    after_a_gap = "done" in reached and "not begun" in reached[: len(reached) - reached[::-1].index("done")]
    return after_a_gap and "part done" not in reached


def render_runs(found: dict[str, Any]) -> str:
    if not found["runs"]:
        return f"no run in {found['folder']}/; `propose run` makes one"
    rows = [("name", "stage", "age", "size", "state")]
    for run in found["runs"]:
        age = ago(run["last_sign"] or run["begun"])
        rows.append((run["name"], run["stage"] or "-", age, megabytes(run["bytes"]), run["state"]))
    told = [f"{run['name']}: {run['why']}" for run in found["runs"] if run["why"]]
    return "\n".join([columns(rows, right=(2, 3)), *told])


def status(root: Path) -> dict[str, Any]:
    """The keys are `keys.STATUS_KEYS`. Raises Failure where there is no run, or it cannot be read."""
    run, config = RunDir.read(root)
    found = survey.reached(run, config)
    now, since, pid = survey.running(run, found)
    state = _state(root, found)
    return {
        "run_dir": str(root),
        "name": config.name,
        "state": state,
        "stage": now.stage if now and state != "done" else None,
        "since": since if now and state != "done" else None,
        "cause": _cause(run, state),
        "last_sign": survey.last_sign(root),
        "left_s": now.left_s if now and state == "running" else None,
        "stages": {r.stage: {k: v for k, v in asdict(r).items() if k != "stage"} for r in found},
        "logs": _logs(root, pid),
        "bytes": survey.size(root),
    }


def _cause(run: RunDir, state: str) -> str | None:
    """Why the run stopped, where its last process has told."""
    told = events.stopped(run) if state == "stopped" else None
    return f"{told[0]}: {told[1].removeprefix(f'{told[0]}: ')}" if told else None


def _logs(root: Path, pid: int | None) -> list[str]:
    """What the run writes of itself, and where the Ray that its process started keeps the logs of its own."""
    own = [str(root / name) for name in (metrics.FILE, events.FILE) if (root / name).is_file()]
    ray = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray")
    sessions = sorted(ray.glob(f"session_*_{pid}/logs")) if pid is not None else []
    return own + [str(session) for session in sessions[-1:]]


def render(found: dict[str, Any], shown: Shown) -> str:
    root = Path(found["run_dir"])
    begun = f" since {_clock(found['since'])}" if found["since"] and found["state"] == "running" else ""
    head = f"{shown(root)} · {found['state']}"
    if found["state"] == "running":
        head += f": {found['stage']}{begun}"
    elif found["state"] == "stopped":
        where = "before" if found["stages"][found["stage"]]["status"] == "not begun" else "in"
        head += f" {where} {found['stage']}; `propose run {shlex.quote(shown(root))}` goes on"
    elif found["state"] == "done" and (missing := [s for s, r in found["stages"].items() if r["status"] != "done"]):
        head += f": {', '.join(s for s in found['stages'] if s not in missing)} alone"
    lines = [head, *([f"stopped by  {found['cause']}"] if found["cause"] else [])]
    rows = [("stage", "status", "how far", "time", "left")]
    for stage, r in found["stages"].items():
        far = "-" if r["status"] == "not begun" else _far(r)
        took = duration(r["wall_s"]) if r["wall_s"] is not None else "-"
        if found["state"] != "running" or stage != found["stage"]:
            rows.append((stage, r["status"], far, took, "-"))
            continue
        far = "models start" if far == "-" else far
        took = duration(max(0.0, time.time() - found["since"])) if found["since"] else took
        rows.append((stage, "running", far, took, f"about {duration(found['left_s'])}" if found["left_s"] else "-"))
    lines.append(columns(rows, right=(3,)))
    if found["last_sign"]:
        lines.append(f"last sign of life {ago(found['last_sign'])} ago · {megabytes(found['bytes'])} on disk")
    lines += [f"{'logs' if i == 0 else '':<5} {shown(Path(path))}" for i, path in enumerate(found["logs"])]
    return "\n".join(lines)


def _far(r: dict[str, Any]) -> str:
    count = f"{r['done']}" if r["total"] is None else f"{r['done']}/{r['total']}"
    return f"{count} {r['unit']}{'' if count == '1' else 's'}"


def _clock(moment: float) -> str:
    return f"{time.strftime('%H:%M', time.localtime(moment))} ({ago(moment)} ago)"
