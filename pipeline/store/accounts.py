"""The accounts of a run, from what is on disk alone, and what in them does not add up.

Reads, for each stage and step: the journal (what was issued), the segment (how it ended), the step's own account, its
rollouts and episodes; and the trainer's checkpoints, which say how many steps and rollouts they hold. Each fact is
written by another process or at another moment than those it is held against. Digests say less, and are of `verify`.

Invariant: every attempt that was issued is trained, filtered, failed or live, exactly one of them; live ones are of
steps that are not on disk yet, which follow those that are without a gap; a task is trained at most once; a checkpoint
has trained the rollouts of its steps, all of them and each once. What contradicts this is a finding: one line that
names the place.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.records import Failure
from pipeline.store.digests import MANIFEST
from pipeline.store.ledger import ENDS, INTERRUPTED, NOT_NEEDED, SEGMENT, Entry, Journal, Key, journal_path
from pipeline.store.manifest import Damage, cause, digest_once
from pipeline.store.run_stages import RUN_STAGES
from pipeline.store.rundir import RunDir, step_folders
from pipeline.store.snapshot import CHECKPOINTS, registered
from pipeline.store.tables import parse, records

_SHOWN = 20
"""Findings listed of one stage; more are counted."""


def audit(run: RunDir) -> dict[str, Any]:
    """{"stages": {stage: {"steps": [...], "totals": {...}, "checkpoints": [...], "trained_twice": tasks,
    "taught": examples of its warm-up}}, "findings": [line, ...]}.

    A step's row: step, on_disk, checkpointed (in some checkpoint), tasks, issued, trained, filtered, failed, live,
    interrupted (failed because the run ended), not_needed (failed because the stage had enough), attempts ({attempt:
    issued}). Issued, its ends and live count attempts.
    """
    stages, findings = {}, []
    for stage, kind in RUN_STAGES.items():
        held = run.path("ledger", stage).is_dir() or (kind.on_policy and run.path("steps", stage).is_dir())
        if kind.issues_attempts and held:
            found: list[str] = []
            stages[stage] = _stage(run, stage, found)
            findings += found[:_SHOWN]
            if len(found) > _SHOWN:
                findings.append(f"{stage}: {len(found) - _SHOWN} findings more")
    return {"stages": stages, "findings": findings}


def findings(run: RunDir, stage: str) -> list[str]:
    """What in one stage's accounts does not add up."""
    found: list[str] = []
    _stage(run, stage, found)
    return found


def check(run: RunDir, stage: str) -> dict[str, int]:
    """The totals of a stage, for its metrics. Raises Failure with the first finding, before anything is built on it."""
    found: list[str] = []
    totals: dict[str, int] = _stage(run, stage, found)["totals"]
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise Failure(f"ledger: {found[0]}{more}; see `propose verify {shlex.quote(str(run.root))}`")
    return totals


def _stage(run: RunDir, stage: str, found: list[str]) -> dict[str, Any]:
    folders = {int(folder.name): folder for folder in step_folders(run.path("steps", stage))}
    if folders and (missing := set(range(1, max(folders))) - folders.keys()):
        found.append(f"{run.path('steps', stage)}: step {min(missing)} is missing although step {max(folders)} exists")
    journals = {int(p.stem): p for p in sorted(run.path("ledger", stage).glob("[0-9]*.jsonl")) if p.stem.isdecimal()}
    last = max(folders, default=0)
    checkpoints = list(_checkpoints(run, stage, found)) if RUN_STAGES[stage].on_policy else []
    steps: list[dict[str, Any]] = []
    trained_in: dict[str, int] = {}
    trained_twice: set[str] = set()
    for step in sorted(folders.keys() | journals.keys()):
        row, trained = _step(run, stage, step, folders.get(step), last, found)
        row["checkpointed"] = any(step <= c["step"] for c in checkpoints)
        steps.append(row)
        for name in trained:
            if name in trained_in:
                found.append(f"{stage}: {name} is trained twice, in steps {trained_in[name]} and {step}")
                trained_twice.add(name)
            trained_in[name] = step
    for step in sorted(journals):
        if step > last + 1 and step - 1 not in journals:
            found.append(f"{stage}: step {step} was begun although step {step - 1} was not")
    _compare_with_trainer(run, stage, steps, checkpoints, found)
    totals = {k: sum(row[k] for row in steps) for k in ("tasks", "issued", *ENDS, "live", "interrupted", "not_needed")}
    return {
        "steps": steps, "totals": totals, "checkpoints": checkpoints, "trained_twice": len(trained_twice),
        "taught": _taught(run, stage, found),
    }  # fmt: skip


def _taught(run: RunDir, stage: str, found: list[str]) -> int:
    """Examples that a warm-up of the stage learned from: they were no attempts."""
    try:
        done = run.result(f"{stage}.warmup")
    except Failure as e:
        found.append(str(e))
        return 0
    return done["result"]["solutions"] if done else 0


def _step(
    run: RunDir, stage: str, step: int, folder: Path | None, last: int, found: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """The row of a step, and the ids that were trained in it."""
    where = f"{stage} step {step}"
    path = journal_path(run, stage, step)
    journal = _journal(path, found)
    if journal.broken is not None:
        found.append(f"{path}:{journal.broken}: does not follow from the lines before it")
    issued, failed = Counter(journal.keys("issue")), Counter(journal.keys("fail"))
    ends = _segment(folder, where, found) if folder is not None else []
    ended = Counter(key for key, _ in ends)
    if folder is None and journal.committed:
        found.append(f"{where}: was committed, and is not on disk")
    if folder is not None and journal.manifest not in (None, manifest_of(folder)):
        found.append(f"{where}: {path.name} was committed with another {MANIFEST} than the one on disk")
    if folder is not None and step < last and not journal.committed:
        found.append(f"{where}: is on disk, and {path.name} does not say that it was committed")

    for key in issued.keys() | failed.keys() | ended.keys():
        name, times = f"{where}: {key[0]} (attempt {key[1]})", failed[key] + ended[key]
        if issued[key] != 1:
            found.append(f"{name} was issued {issued[key]} times")
        if times > 1:
            found.append(f"{name} has {times} ends")
        if times == 0 and folder is not None:
            found.append(f"{name} was issued and has no end")
    for name, attempts in _attempts(issued).items():
        if attempts != list(range(1, len(attempts) + 1)):
            found.append(f"{where}: {name} has attempts {attempts}, expected 1 to {len(attempts)}")

    counts = Counter(end for _, end in ends)
    account = {"issued": len(ends)} | {end: counts[end] for end in ENDS}
    trained = [key for key, end in ends if end == "trained"]
    if folder is not None:
        for said, by in ((_stated(folder), "state.json"), (_committed(journal), path.name)):
            if said is not None and said != account:
                found.append(f"{where}: {by} says {said}, its attempts are {account}")
        _compare_files(folder, where, stage, ended, trained, found)
    reasons = Counter(e["reason"] for e in journal.events if e["event"] == "fail")
    row = {
        "step": step, "on_disk": folder is not None, "tasks": len({name for name, _ in issued}),
        "issued": sum(issued.values()), "trained": account["trained"], "filtered": account["filtered"],
        "failed": account["failed"] + sum(failed.values()),
        "live": 0 if folder is not None else len(journal.open()), "interrupted": reasons[INTERRUPTED],
        "not_needed": reasons[NOT_NEEDED],
        "attempts": dict(sorted(Counter(attempt for _, attempt in issued.elements()).items())),
    }  # fmt: skip
    return row, [name for name, _ in trained]


def _journal(path: Path, found: list[str]) -> Journal:
    try:
        return Journal.read(path) if path.exists() else Journal((), 0, None)
    except OSError as e:
        found.append(f"{path}: {cause(e)}")
        return Journal((), 0, None)


def manifest_of(folder: Path) -> str | None:
    """The digest of a step's manifest; None where that cannot be read."""
    try:
        return digest_once(folder / MANIFEST)[1]
    except OSError:
        return None


def _attempts(issued: Counter[Key]) -> dict[str, list[int]]:
    numbers: dict[str, list[int]] = {}
    for name, attempt in sorted(issued):
        numbers.setdefault(name, []).append(attempt)
    return numbers


def _segment(folder: Path, where: str, found: list[str]) -> list[tuple[Key, str]]:
    try:
        return [((e.id, e.attempt), e.end) for e in records(folder / SEGMENT, parse(folder / SEGMENT), Entry)]
    except Damage as e:
        found.append(f"{where}: {SEGMENT} {e.what}")
        return []


def _stated(folder: Path) -> dict[str, int]:
    """The step's own account; empty where it cannot be read."""
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        return {name: int(n) for name, n in state["ledger"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _committed(journal: Journal) -> dict[str, int] | None:
    """What the journal's commit line says; None where a crash cut it off, or it was added afterwards."""
    for event in journal.events:
        if event["event"] == "commit" and "issued" in event:
            return {name: event[name] for name in ("issued", *ENDS)}
    return None


def _compare_files(
    folder: Path, where: str, stage: str, ended: Counter[Key], trained: list[Key], found: list[str]
) -> None:
    """The rollouts of a step are those trained, its episodes those issued."""
    expected: dict[str, tuple[tuple[str, str], Counter[Key]]] = {}
    if RUN_STAGES[stage].trains:
        expected["rollouts.parquet"] = (("episode_id", "attempt"), Counter(trained))
    if RUN_STAGES[stage].plays:
        expected["episodes.parquet"] = (("id", "attempt"), ended)
    for name, (columns, keys) in expected.items():
        try:
            table = parse(folder / name, list(columns))
        except Damage as e:
            found.append(f"{where}: {name} {e.what}")
            continue
        there = Counter(zip(*(table.column(c).to_pylist() for c in columns), strict=True))
        for key in sorted((there - keys) | (keys - there)):
            found.append(f"{where}: {key[0]} (attempt {key[1]}) is {there[key]} times in {name}, expected {keys[key]}")


def _checkpoints(run: RunDir, stage: str, found: list[str]) -> Iterator[dict[str, int]]:
    """{"step", "rollouts"} of each checkpoint that Ray Train has registered, as the checkpoint itself says."""
    base = run.path("checkpoints", stage)
    snapshot = base / CHECKPOINTS
    if not snapshot.exists():
        return
    try:
        names = registered(snapshot.read_bytes())
    except (OSError, ValueError):
        found.append(f"{snapshot}: not a snapshot of Ray Train; without it the trainer begins from its first step")
        return
    for name in names:
        try:
            state = json.loads((base / name / "trainer" / "state.json").read_text(encoding="utf-8"))
            checkpoint = {"step": int(state["step"]), "rollouts": int(state["rollouts"])}
        except (OSError, ValueError, KeyError, TypeError) as e:
            found.append(f"{stage} checkpoint {name}: trainer/state.json cannot be read ({type(e).__name__}: {e})")
            continue
        if name != f"step-{checkpoint['step']:06d}":
            found.append(f"{stage} checkpoint {name}: says it is of step {checkpoint['step']}")
        yield checkpoint


def _compare_with_trainer(
    run: RunDir, stage: str, steps: list[dict[str, Any]], checkpoints: list[dict[str, int]], found: list[str]
) -> None:
    released = max((row["step"] for row in steps if row["on_disk"]), default=0)
    for checkpoint in checkpoints:
        step, rollouts = checkpoint["step"], checkpoint["rollouts"]
        expected = sum(row["trained"] for row in steps if row["on_disk"] and row["step"] <= step)
        if step > released:
            found.append(f"{stage} checkpoint of step {step}: only {released} steps were released")
        elif rollouts != expected:
            found.append(f"{stage} checkpoint of step {step}: trained {rollouts} rollouts, its steps have {expected}")
    try:
        done = run.result(stage) if RUN_STAGES[stage].on_policy else None
    except Failure as e:
        found.append(str(e))
        return
    if done is None:
        return
    newest = max((c["step"] for c in checkpoints), default=0)
    for what, n in (("result", done["result"].get("steps")), ("newest checkpoint", newest)):
        if n != released:
            found.append(f"{stage}: its {what} has {n} steps, {released} were released")
