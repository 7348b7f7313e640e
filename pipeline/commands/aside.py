"""What is taken out of a run's way, to be made again: moved below the run directory, into the next number of a folder.

    .redone/N      by `redo`: all of a stage and of those after it
    .set-aside/N   by `verify`: what it replaced, and units with what was built on them

Invariant: nothing is deleted, and no line of the metrics goes that a result or a step which stays vouches for. What
tells of the run as a whole (the pages, the metrics) tells of nothing that was taken.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.records import Failure
from pipeline.store import chained, events, metrics, told
from pipeline.store.files import replace, writing
from pipeline.store.run_stages import RUN_STAGES
from pipeline.store.rundir import RunDir

PAGES = ("summary.json", "report.html")
_BY_STAGE = ("checkpoints", "ledger", "quarantine", "stages", "steps")
"""Folders whose entries are named after stages."""

Gone = Callable[[Mapping[str, Any]], bool]
"""Whether a line of metrics or events is of what is taken."""


def left_by(root: Path, stage: str) -> list[Path]:
    """What a stage left, relative to the run directory; its result first, so that a stage half moved is not done."""
    found = [
        entry.relative_to(root)
        for folder in (root / name for name in _BY_STAGE if (root / name).is_dir())
        for entry in sorted(folder.iterdir())
        if entry.name == stage or entry.name.startswith(f"{stage}.")
    ]
    own = (RUN_STAGES[stage].makes, RUN_STAGES[stage].gathers)
    found += [Path(name) for name in own if name is not None and (root / name).is_dir()]
    return sorted(found, key=lambda path: path.parts[0] != "stages")


def free(root: Path, name: str) -> Path:
    """The next number of a folder of what was taken."""
    taken = (int(p.name) for p in (root / name).glob("[0-9]*") if p.name.isdecimal())
    return root / name / str(1 + max(taken, default=0))


def move(run: RunDir, aside: Path, names: Iterable[str | Path]) -> list[str]:
    """Move what there is of some files and folders, under their names; returns them. `aside` is new: a disk that has no
    room for its folders keeps everything where it was."""
    there = [name for name in dict.fromkeys(map(str, names)) if os.path.lexists(run.root / name)]
    with writing(aside):
        try:
            for name in there:
                (aside / name).parent.mkdir(parents=True, exist_ok=True)
        except OSError:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        for name in there:
            shutil.move(run.root / name, aside / name)
    return there


def take(run: RunDir, aside: Path, names: Iterable[str | Path], stages: Sequence[str], gone: Gone) -> list[str]:
    """Move what these stages are to make again, and with it the pages and the lines that tell of it."""
    lines, ours, names = run.path(metrics.FILE), aside / f".{metrics.FILE}", list(names)
    with writing(lines):
        kept = before(run, metrics.FILE, names, gone) if lines.is_file() else None
    cut = kept is not None and len(kept) < lines.stat().st_size
    if kept is not None and cut:  # what takes room comes first: moving takes none
        with writing(aside):
            try:
                aside.mkdir(parents=True)
                shutil.copyfile(lines, aside / metrics.FILE)
                replace(ours, kept)
            except (OSError, Failure):
                shutil.rmtree(aside, ignore_errors=True)
                raise
    try:
        events.undone(run, stages)
    except Failure:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    moved = move(run, aside, [*names, *PAGES])
    if cut:
        ours.replace(lines)
    return moved


def of_stages(stages: Sequence[str]) -> Gone:
    """Lines of these stages: `mgpo-train` and `mgpo-ledger` are mgpo's."""
    return lambda facts: stage_of(facts) in stages


def stage_of(facts: Mapping[str, Any]) -> str:
    return str(facts.get("stage")).partition("-")[0]


def before(run: RunDir, name: str, taken: Iterable[str | Path], gone: Gone) -> bytes:
    """The lines of metrics or events up to the first that is `gone`, and at least those that results and steps vouch
    for which are not `taken`."""
    content = run.path(name).read_bytes()
    kept = (entries for _, entries in told.vouchers(run, set(map(str, taken))))
    end = max((entries[name][0] for entries in kept if name in entries), default=0)
    for line, text in zip(chained.lines(content[end:]), content[end:].split(b"\n"), strict=False):
        if line.facts is not None and gone(line.facts):
            break
        end += len(text) + 1
    return content[:end]
