"""What is gone, or is another file than the one there was, although what was written later tells of it.

    the result of a stage          by the results of stages after it, and by the events; of a part of one, by its steps
    prompts, metrics, events       by results and steps, which say what these files held when they were written
    what a worker died of          by the journal of its step

Invariant: what a crash may leave is no finding, for each of these tells only of what was on disk before it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator

from pipeline.records import Failure
from pipeline.store import events, manifest
from pipeline.store.digests import MANIFEST, Entry
from pipeline.store.ledger import Journal
from pipeline.store.manifest import Damage, cause, differs, of_prefix
from pipeline.store.run_stages import RUN_STAGES, onwards
from pipeline.store.rundir import APPENDED, PROMPTS, RunDir, step_folders

Found = tuple[str, str]
"""Path in the run directory, and what is wrong with it."""


def findings(run: RunDir) -> Iterator[Found]:
    """In no order."""
    yield from _results(run)
    yield from _beside(run)
    yield from _quarantine(run)


def _results(run: RunDir) -> Iterator[Found]:
    told: dict[str, str] = {}
    for stage, kind in RUN_STAGES.items():
        part = f"{stage}.{kind.part}"
        if kind.part and run.path("checkpoints", part).is_dir() and step_folders(run.path("steps", stage)):
            told[part] = f"{stage} has begun after it"
        with contextlib.suppress(Damage):  # found where results are
            done = run.finished(stage)
            for earlier in done["after"] if done else ():
                if earlier not in RUN_STAGES or earlier not in onwards(stage):
                    told.setdefault(earlier, f"{stage} was finished after it")
    with contextlib.suppress(Failure):  # found where events are
        for stage in events.finished(run):
            told.setdefault(stage, f"{events.FILE} tells of it")
    for stage, by in told.items():
        name = f"stages/{stage}.json"
        if not os.path.lexists(run.path(name)):
            yield (name, f"is missing, and {by}")


def vouchers(run: RunDir, without: Collection[str] = ()) -> Iterator[tuple[str, dict[str, Entry]]]:
    """(file, what it says of the files beside it) of the results of stages, and of the last step of each; as if some
    files and folders were not there."""
    for stage in RUN_STAGES:
        name = f"stages/{stage}.json"
        with contextlib.suppress(Damage):  # found where results are
            done = run.finished(stage) if name not in without else None
            if done is not None:
                yield name, manifest.listed(run.path(name), done)
        base = f"steps/{stage}"
        folders = step_folders(run.path(base)) if base not in without else []
        numbered = {int(path.name): path for path in folders if f"{base}/{path.name}" not in without}
        if numbered:
            path = numbered[max(numbered)] / MANIFEST
            with contextlib.suppress(Damage):  # found where steps are
                beside = {"files": manifest.read(path).get("beside", {})}
                yield path.relative_to(run.root).as_posix(), manifest.listed(path, beside)


def _beside(run: RunDir) -> Iterator[Found]:
    wrong: dict[str, str] = {}
    if os.path.lexists(run.path(PROMPTS)):
        try:
            manifest.read(run.path(PROMPTS))
        except Damage as e:
            wrong[PROMPTS] = e.what
    for by, entries in vouchers(run):
        for name in (*APPENDED, PROMPTS):
            if name in entries and (what := _differs(run, name, entries[name])):
                wrong.setdefault(name, f"{what} (by {by})")
    yield from wrong.items()


def _differs(run: RunDir, name: str, entry: Entry) -> str | None:
    if name == PROMPTS:
        return differs(run.path(name), entry)
    try:
        return None if of_prefix(run.path(name), entry[0]) == entry else "its first lines are not those written"
    except OSError as e:
        return cause(e)


def _quarantine(run: RunDir) -> Iterator[Found]:
    for path in run.path("ledger").glob("*/[0-9]*.jsonl"):
        try:
            content = path.read_bytes()
        except OSError:
            continue  # found where the accounts are
        if b'"event": "quarantine"' not in content:  # parsing is what costs
            continue
        by = path.relative_to(run.root).as_posix()
        for id in sorted({e["id"] for e in Journal.of(content).events if e["event"] == "quarantine"}):
            name = f"quarantine/{path.parent.name}/{id}.json"
            if not os.path.lexists(run.path(name)):
                yield (name, f"is missing, and {by} tells of it")
                continue
            with contextlib.suppress(Damage):  # found where sealed files are
                if (other := manifest.read(run.path(name))["id"]) != id:
                    yield (name, f"is of {other}")
