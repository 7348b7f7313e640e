"""The events of a run, for whoever watches it from outside: `events.jsonl`, one JSON object a line, newest last.

    {"time": 1790000000.125, "event": "stage_restarted", "stage": "mgpo", "steps": 6, "cause": "...", "pools": "kept"}

Events tell, they decide nothing: no run resumes from them, and runs are not compared by them.

Invariant: the file is whole at any moment, because each event replaces it, and has at most `KEPT` lines. Events are
rare (a stage that lost a process), so writing it again costs nothing.
"""

from __future__ import annotations

import json
import time
from typing import Any, Literal

from pipeline.records import Failure
from pipeline.store.rundir import RunDir

FILE = "events.jsonl"
KEPT = 1000

Event = Literal["stage_started", "stage_restarted"]
"""stage_started: `stage` begins, or goes on from its `steps` on disk, in process `pid`.
stage_restarted: `stage` has lost a process, or stalled, and begins again from its `steps` on disk · `cause`: one line ·
`pools`: kept or new."""


def append(run: RunDir, event: Event, **facts: str | int) -> None:
    """Add an event; beyond `KEPT` the oldest are left out. One writer at a time: the process that holds the run."""
    path = run.path(FILE)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    line = json.dumps({"time": round(time.time(), 3), "event": event, **facts})
    run.write_text(FILE, "".join([*lines, line + "\n"][-KEPT:]))


def read(run: RunDir, event: Event, since: float = 0.0) -> list[dict[str, Any]]:
    """Events of a kind after a moment (`time.time`), oldest first. Raises Failure naming a line that is none."""
    path = run.path(FILE)
    found = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1] if path.exists() else [], start=1):
        try:
            entry = json.loads(line)
            if entry["event"] == event and entry["time"] > since:
                found.append(entry)
        except (ValueError, KeyError, TypeError):
            raise Failure(f"{path}:{number}: no event; expected an object with time and event") from None
    return found
