"""The events of a run, for whoever watches it from outside: `events.jsonl`, one JSON object a line, newest last.

    {"time": 1790000000.125, "event": "stage_restarted", "stage": "mgpo", "steps": 6, "cause": "...", "pools": "kept",
     "crc": "..."}

No run resumes from events, and runs are not compared by them; `told` takes from them which results there were.

Invariant: the file is whole at any moment, because each event replaces it; what it holds stays as it is, and each line
has a checksum that follows from the line before it (`chained`). Events are few (a stage begins, ends, loses a process),
so writing the file again costs nothing. A damaged line is left out by readers, and named by `damage`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pipeline.records import Failure
from pipeline.store import chained
from pipeline.store.files import replace, without, writing
from pipeline.store.rundir import RunDir

FILE = "events.jsonl"

Event = Literal["stage_started", "stage_restarted", "stage_stopped", "stage_finished", "stage_undone"]
"""stage_started: `stage` begins, or goes on from its `steps` on disk, in process `pid`.
stage_restarted: `stage` has lost a process, or stalled, and begins again from its `steps` on disk · `cause`: one line ·
`pools`: kept or new.
stage_stopped: `stage` ended without a result, as it would not do for a process that was killed · `cause`: one line.
stage_finished: the result of `stage` is on disk.
stage_undone: it was taken away, to be made again.
Where a stage begins and where it ends, `usd` is what the run has paid endpoints so far."""


def append(run: RunDir, event: Event, **facts: str | float) -> None:
    """Add an event. One writer at a time: the process that holds the run."""
    path = run.path(FILE)
    with writing(path):
        content = path.read_bytes() if path.exists() else b""
    before = content.removesuffix(b"\n").rpartition(b"\n")[2]
    line, _ = chained.line({"time": round(time.time(), 3), "event": event, **facts}, chained.stated(before))
    replace(path, content + line)


def read(run: RunDir, event: Event, since: float = 0.0) -> list[dict[str, Any]]:
    """Events of a kind after a moment (`time.time`), oldest first; damaged lines are left out."""
    return [facts for facts in _sound(run.path(FILE)) if facts["event"] == event and facts["time"] > since]


def finished(run: RunDir) -> set[str]:
    """The stages that have a result, by what was told of them last. Raises Failure."""
    last: dict[str, str] = {}
    for facts in _sound(run.path(FILE)):
        if facts["event"] in ("stage_finished", "stage_undone"):
            last[facts["stage"]] = facts["event"]
    return {stage for stage, event in last.items() if event == "stage_finished"}


def undone(run: RunDir, stages: Iterable[str]) -> None:
    """The results of these stages are taken away."""
    for stage in sorted(finished(run) & set(stages)):
        append(run, "stage_undone", stage=stage)


def stopped(run: RunDir) -> tuple[str, str] | None:
    """(stage, why) where a stage ended without a result, and nothing was told of since. Raises Failure."""
    return next(
        (
            (last["stage"], last["cause"])
            for last in deque(_sound(run.path(FILE)), 1)
            if last["event"] == "stage_stopped"
        ),
        None,
    )


def spent(run: RunDir) -> dict[str, float]:
    """Stage -> US dollars that the run paid endpoints from its begin to its end, or to the next begin where a process
    was killed; {} where nothing was noted of that. Raises Failure."""
    found: dict[str, float] = {}
    begun: tuple[str, float] | None = None
    for facts in _sound(run.path(FILE)):
        if (usd := facts.get("usd")) is None:
            continue
        if begun is not None:
            stage, before = begun
            found[stage] = found.get(stage, 0.0) + max(0.0, usd - before)
        begun = (facts["stage"], usd) if facts["event"] == "stage_started" else None
    return found


def damage(run: RunDir) -> list[int]:
    """Numbers of the lines that are no event, or do not follow from the line before them. Raises Failure."""
    return [line.number for line in _lines(run.path(FILE)) if not _is_event(line)]


def _sound(path: Path) -> Iterator[dict[str, Any]]:
    for line in _lines(path):
        if line.facts is not None and _is_event(line):
            yield line.facts


def _lines(path: Path) -> Iterator[chained.Line]:
    """An event replaces the file, so its last line has its newline."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return iter(())
    except OSError as e:
        raise Failure(f"{path}: {e.strerror}; expected a file of events; {without(path)}") from None
    return chained.lines(content if content.endswith(b"\n") or not content else content + b"\n")


def _is_event(line: chained.Line) -> bool:
    facts = line.facts or {}
    return line.follows and isinstance(facts.get("event"), str) and isinstance(facts.get("time"), int | float)
