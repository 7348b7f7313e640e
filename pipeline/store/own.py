"""Files of a run that carry their own digest: pages, what the adversary found, quarantine, TensorBoard.

Invariant: a file of one kind in the place of another's is a finding, too, and so is one that is gone although another
file tells of it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.records import Failure
from pipeline.store import event_files, events, manifest, metrics
from pipeline.store.identity import config_in
from pipeline.store.manifest import Damage, cause
from pipeline.store.run_stages import RUN_STAGES
from pipeline.store.rundir import RunDir
from pipeline.store.snapshot import MIRRORED

SEAL_OF_PAGE = "<!-- sha256 "
Found = tuple[str, str, str]
"""Path in the run directory, what is wrong with it, and the unit that is mended as a whole."""
PAGES = ("report.html", "tensorboard")
"""Units that are made of what the others hold."""
_ADVERSARY, _SUMMARY = "adversary.json", "summary.json"
_OF = {MIRRORED: "known", _ADVERSARY: "by_kind", _SUMMARY: "stages"}
"""Sealed file -> a field that it has, and no other of them."""


def findings(run: RunDir) -> Iterator[Found]:
    """In no order."""
    sealed = [p.relative_to(run.root).as_posix() for p in run.path("quarantine").rglob("[!.]*.json")]
    for name in [*sealed, *(name for name in (MIRRORED, _ADVERSARY) if os.path.lexists(run.path(name)))]:
        if wrong := sealed_damage(run, name):
            yield (name, wrong, name)
    if not os.path.lexists(run.path(MIRRORED)) and _names_a_mirror(run):
        yield (MIRRORED, "is missing, and config.yaml names a mirror", MIRRORED)
    yield from _pages(run)
    yield from _board(run)


def sealed_damage(run: RunDir, name: str) -> str | None:
    """What is wrong with a sealed file, in words; None if it is the one of its name, as it was written."""
    try:
        found = manifest.read(run.path(*name.split("/")))
    except Damage as e:
        return e.what
    return "is another file than the one written" if name in _OF and _OF[name] not in found else None


def _names_a_mirror(run: RunDir) -> bool:
    try:
        return _mirror_in(run.path("config.yaml").read_bytes())
    except (OSError, Failure):
        return False  # found where the config is


@functools.lru_cache(maxsize=16)
def _mirror_in(config: bytes) -> bool:
    """YAML is read once: it takes longer than the digests of a small run."""
    return config_in("config.yaml", config).get("mirror") is not None


def _pages(run: RunDir) -> Iterator[Found]:
    """The report, and the summary that is written before it and tells of what there was then."""
    page = run.path("report.html")
    if os.path.lexists(page) and (wrong := page_damage(page)):
        yield ("report.html", wrong, "report.html")
    done = all(run.path("stages", f"{stage}.json").exists() for stage in RUN_STAGES)
    if not os.path.lexists(page):
        summed = os.path.lexists(run.path(_SUMMARY))
        if done or summed:
            yield ("report.html", "is missing", "report.html")
        if not summed:
            return
    if wrong := sealed_damage(run, _SUMMARY):
        yield (_SUMMARY, wrong, "report.html")
        return
    told = manifest.read(run.path(_SUMMARY))
    names = [f"stages/{stage}.json" for stage, facts in told["stages"].items() if facts["status"] == "done"]
    names += [_ADVERSARY] if told.get("exploit_share") is not None else []
    for name in names:
        if not os.path.lexists(run.path(*name.split("/"))):
            yield (name, f"is missing, and {_SUMMARY} tells of it", name)


def _board(run: RunDir) -> Iterator[Found]:
    """TensorBoard's files. A run may have none; else they show the rows of its metrics, but for one that each process
    may have died over: in a stage that it did not finish, or after its last."""
    folder = run.path("tensorboard")
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except FileNotFoundError:
        return
    except OSError as e:
        yield ("tensorboard", cause(e), "tensorboard")
        return
    shown: list[int] = []
    for name in names:
        try:
            shown.append(event_files.count(folder / name))
        except Damage as e:
            yield (f"tensorboard/{name}", e.what, "tensorboard")
    if len(shown) < len(names):
        return
    with contextlib.suppress(Failure):  # found where metrics and events are
        rows = sum(map(len, metrics.read(run).values()))
        died = 1 + max(0, len(events.read(run, "stage_started")) - len(events.read(run, "stage_finished")))
        if sum(shown) < rows - died or (rows and not names):
            yield ("tensorboard", f"shows {sum(shown)} of the {rows} rows of {metrics.FILE}", "tensorboard")


def page_damage(path: Path) -> str | None:
    """What is wrong with report.html, whose last line is a digest of the others."""
    try:
        text, mark, rest = path.read_bytes().rpartition(SEAL_OF_PAGE.encode())
    except OSError as e:
        return cause(e)
    sound = mark and rest == f"{hashlib.sha256(text).hexdigest()} -->\n".encode()
    return None if sound else "is not the page that was written"
