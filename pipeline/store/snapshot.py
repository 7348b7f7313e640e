"""What a run directory holds at one moment, listed while a run works in it.

Invariant: a snapshot is a state that a crash could have left, so a run resumes from it and its accounts add up. A step
that it holds has all its attempts in the journals it holds; a checkpoint has its steps; a stage's result has its
checkpoints and steps. Whoever writes does so in the order attempts, step, checkpoint, result; the snapshot reads what
depends before what it depends on, and is taken again where a step or a result appeared meanwhile.

Temporary names (they begin with a dot) and checkpoints that Ray Train has not registered are in none.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.records import Failure
from pipeline.store import manifest

_PLAIN = re.compile(r"\w[\w.-]*", re.ASCII)
CHECKPOINTS = "checkpoint_manager_snapshot.json"
"""Ray Train's list of the checkpoints that are whole. It is overwritten in place."""
MIRRORED = ".mirror.json"
"""What the directory knows of its mirror: the manifests that it descends from, and whether it is being restored."""


def mirror_state(root: Path) -> dict[str, Any] | None:
    """What the directory knows of its mirror; None where it has none. Raises Failure where that is damaged."""
    try:
        return manifest.read(root / MIRRORED) if (root / MIRRORED).exists() else None
    except manifest.Damage as e:
        raise Failure(
            f"{e.path}: {e.what}; move {root} away, and the same command restores the run from its mirror"
        ) from None


class Moving(Exception):
    """The directory changed while it was listed, or read."""


@dataclass(frozen=True)
class Found:
    """A file as listed. Of one that is appended to, the first `size` bytes belong to the snapshot."""

    inode: int
    size: int
    changed_ns: int
    content: bytes | None = None
    """Read while listing, where a later look might see another state."""


Whole = dict[str, dict[str, Found]]
"""Step directory -> its files, of earlier snapshots: it does not change any more."""


def take(root: Path, whole: Whole) -> dict[str, Found]:
    """Path in the run directory -> file. Raises Moving where it has to be taken again."""
    before = _ended(root)
    found: dict[str, Found] = {}
    for stage in _folders(root / "checkpoints"):
        found |= _checkpoints(root, stage)
    found |= dict(_files(root, root / "ledger"))
    if _ended(root) != before:
        raise Moving(f"{root}: a step or a stage ended")
    for name in before:
        path = root / name
        if path.is_dir():
            found |= whole.setdefault(name, dict(_files(root, path)))
        else:
            found[name] = _stat(path)
    done_above = ("checkpoints", "ledger", "steps", "stages")
    for entry in sorted(root.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir() and entry.name not in done_above:
            found |= dict(_files(root, entry))
        elif entry.is_file():
            found[entry.name] = _stat(entry)
    if _results(root) != [name for name in before if name.startswith("stages/")]:
        raise Moving(f"{root}: a stage ended")  # events, which were read last, may tell of it
    return found


def _ended(root: Path) -> list[str]:
    """Stages with a result, and step directories."""
    names = _results(root)
    for stage in _folders(root / "steps"):
        names += [f"steps/{stage.name}/{step.name}" for step in _folders(stage)]
    return names


def _results(root: Path) -> list[str]:
    return [f"stages/{path.name}" for path in sorted(root.glob("stages/*.json")) if not path.name.startswith(".")]


def _checkpoints(root: Path, stage: Path) -> dict[str, Found]:
    path = stage / CHECKPOINTS
    if not path.exists():
        return {}
    content = path.read_bytes()
    try:
        names = registered(content)
    except ValueError:
        raise Moving(f"{path}: not a snapshot of Ray Train") from None
    stat = _stat(path)
    found = {str(path.relative_to(root)): Found(stat.inode, len(content), stat.changed_ns, content)}
    for name in names:
        found |= dict(_files(root, stage / name))
    if path.read_bytes() != content:  # Ray Train writes it before it deletes what it no longer names
        raise Moving(f"{path}: was changed")
    return found


def registered(content: bytes) -> list[str]:
    """The checkpoints that Ray Train's list names. Raises ValueError where it is no such list."""
    try:
        names = [c["checkpoint_dir_name"] for c in json.loads(content)["checkpoint_results"]]
    except (KeyError, TypeError, UnicodeDecodeError) as e:
        raise ValueError(f"lists no checkpoints ({type(e).__name__})") from None
    if odd := [name for name in names if not isinstance(name, str) or not _PLAIN.fullmatch(name)]:
        raise ValueError(f"lists {odd[0]!r}")
    return names


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")) if path.is_dir() else []


def _files(root: Path, top: Path) -> Iterator[tuple[str, Found]]:
    for folder, folders, names in os.walk(top):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                path = Path(folder, name)
                yield str(path.relative_to(root)), _stat(path)


def _stat(path: Path) -> Found:
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise Moving(f"{path}: was deleted") from None
    return Found(stat.st_ino, stat.st_size, stat.st_mtime_ns)
