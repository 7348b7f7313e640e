"""A run worked over: a stage and those after it done again, or another run begun from the stages that stay the same.

    redo   moves what the stages left to .redone/N in the run directory; what a run then makes anew takes its place
    fork   gives a new run directory the stages that other settings leave as they are; files that are written once
           are shared with the run they come from (hard links), so a fork costs no room

What a stage left is every file and folder that bears its name (steps/<stage>, stages/<stage>.json, ...), the folder
that the registry of stages says is its own, and its lines in the metrics.

Invariant: no other stage's files change, a run that a process holds is refused, and a fork is there whole or not at
all.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pipeline.commands import aside, preflight
from pipeline.commands.tables import megabytes
from pipeline.config import Config, loading
from pipeline.records import Failure
from pipeline.store import events, manifest, metrics
from pipeline.store.digests import seal
from pipeline.store.files import replace, writing
from pipeline.store.identity import changed, config_text, default_root, identity_of
from pipeline.store.run_stages import RUN_STAGES, first_reader, onwards
from pipeline.store.rundir import RunDir

ASIDE = ".redone"
"""Below the run directory. No mirror keeps what begins with a dot."""
_WRITTEN_ONCE = (".parquet", ".safetensors", ".pt")

Shown = Callable[[Path], str]


def redo(root: Path, stage: str, dry_run: bool, to_run: bool = False) -> dict[str, Any]:
    """Set aside what a stage and those after it left; `to_run`: only where a run could then make them again. The keys
    are `keys.REDO_KEYS`."""
    if stage not in RUN_STAGES:
        near = get_close_matches(stage, RUN_STAGES, n=1)
        mean = f" (did you mean {near[0]}?)" if near else ""
        raise Failure(f"{stage}: no stage{mean}; expected one of {', '.join(RUN_STAGES)}")
    run, config = RunDir.read(root)
    metrics.read(run)  # a line that is none is named before anything is moved
    stages = onwards(stage)
    paths = [path for name in reversed(stages) for path in aside.left_by(root, name)]
    if not paths:
        begin = f"propose run {shlex.quote(str(root))}"
        raise Failure(f"{root}: nothing of {stage} nor of what follows it is there; `{begin}` begins it")
    to = aside.free(root, ASIDE)
    if not dry_run:
        if to_run:
            preflight.check(config, root, list(RUN_STAGES), again=stages)
        run = RunDir.open(root, config)
        try:
            aside.take(run, to, paths, stages, aside.of_stages(stages))
        finally:
            run.close()
    return {
        "run_dir": str(root), "stages": stages, "moved": [str(path) for path in paths], "to": str(to),
        "dry_run": dry_run,
    }  # fmt: skip


def render_redo(found: dict[str, Any], shown: Shown) -> str:
    root, to = Path(found["run_dir"]), shown(Path(found["to"]))
    would = "would set" if found["dry_run"] else "set"
    lines = [f"{shown(root)}: {would} aside {', '.join(found['stages'])} in {to}"]
    lines += [f"  {path}" for path in found["moved"]]
    if not found["dry_run"]:
        lines.append(f"delete {to} when you do not need it")
    return "\n".join(lines)


# ---------------------------------------------------------------- fork


def fork(root: Path, sets: Sequence[str], new: Path | None, dry_run: bool) -> dict[str, Any]:
    """Begin a run with other settings from what stays the same. The keys are `keys.FORK_KEYS`."""
    run, before = RunDir.read(root)
    metrics.read(run)
    events.read(run, "stage_started")
    config = loading.load(root / "config.yaml", list(sets))
    if config.mirror is not None and config.mirror == before.mirror:  # a place keeps one run
        config = config.model_copy(update={"mirror": None})
    fields = [field for field in changed(before, config) if field != "name"]
    new = new or root.parent / default_root(config).name
    if new.absolute() == root.absolute():
        raise Failure(f"{root}: these settings compute the same; expected a --set FIELD=VALUE that changes the run")
    if new.exists() and any(new.iterdir()):
        go_on = f"propose run {shlex.quote(str(new))}"
        raise Failure(f"{new}: is there already; `{go_on}` goes on with it, or give another --run-dir")
    again = {name for field in fields for name in onwards(first_reader(field))}
    shared = [name for name in RUN_STAGES if name not in again and run.result(name) is not None]
    size = 0
    if not dry_run:
        size = _begin(run, new, config, shared)
    return {
        "run_dir": str(new), "from": str(root), "changed": fields, "shared": shared,
        "again": [name for name in RUN_STAGES if name not in shared], "bytes": size, "dry_run": dry_run,
    }  # fmt: skip


def _begin(run: RunDir, new: Path, config: Config, shared: Sequence[str]) -> int:
    temporary = new.with_name(f".{new.name}.tmp")
    with writing(new):
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
            size = sum(_share(run.root, temporary, aside.left_by(run.root, name)) for name in shared)
            others = [name for name in RUN_STAGES if name not in shared]
            taken = [path for name in others for path in aside.left_by(run.root, name)]
            for name in (metrics.FILE, events.FILE):
                if run.path(name).is_file():
                    replace(temporary / name, aside.before(run, name, taken, aside.of_stages(others)))
            metrics.board_again(RunDir(temporary))
            events.undone(RunDir(temporary), others)
            for name in shared:  # a result says of which run it is
                done = manifest.read(temporary / "stages" / f"{name}.json")
                replace(temporary / "stages" / f"{name}.json", seal(done | {"run": identity_of(config)}))
            if run.path("prompts.json").is_file():
                shutil.copyfile(run.path("prompts.json"), temporary / "prompts.json")
            replace(temporary / "config.yaml", config_text(config))
            if new.exists():
                new.rmdir()
            temporary.rename(new)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)  # a full disk would be fuller
            raise
    return size


def _share(root: Path, new: Path, paths: Iterable[Path]) -> int:
    """Give `new` the paths; returns the bytes that this costs."""
    cost = 0
    for path in paths:
        files = sorted(p for p in (root / path).rglob("*") if p.is_file()) if (root / path).is_dir() else [root / path]
        for file in files:
            copy = new / file.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix in _WRITTEN_ONCE:
                try:
                    os.link(file, copy)
                    continue
                except OSError:  # another file system, or one without hard links
                    pass
            shutil.copy2(file, copy)
            cost += copy.stat().st_size
    return cost


def render_fork(found: dict[str, Any], shown: Shown) -> str:
    new = shown(Path(found["run_dir"]))
    changes = ", ".join(found["changed"][:5]) + (
        f" and {len(found['changed']) - 5} more" if found["changed"][5:] else ""
    )
    would = "would share" if found["dry_run"] else "shares"
    lines = [
        f"{new}: {would} {', '.join(found['shared']) or 'no stage'} with {shown(Path(found['from']))}",
        f"changed  {changes or 'nothing that is computed'}",
        f"to do    {', '.join(found['again']) or 'nothing'}",
    ]
    if not found["dry_run"]:
        lines += [f"cost     {megabytes(found['bytes'])} on disk", f"next     propose run {shlex.quote(new)}"]
    return "\n".join(lines)
