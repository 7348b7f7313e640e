"""Which config and which run a command is about, from what stands on its command line.

Invariant: a thing is said once (a run as an argument and as `--run-dir` is refused), and a name that is none is refused
with the nearest that there is; nothing is made.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from pipeline.commands import screens
from pipeline.config import Config, loading
from pipeline.records import Failure
from pipeline.store import survey
from pipeline.store.identity import default_root
from pipeline.store.lock import in_use
from pipeline.store.rundir import RunDir, named

RUNS = Path("runs")


def of(target: str | None, file: Path | None, sets: Sequence[str] | None, run_dir: str | None) -> tuple[Config, Path]:
    """The config to work by and the run directory to work in.

    `target` is a config file, or the directory of a run, which then goes on by its own config.
    """
    for given in (target, run_dir):
        if given is not None:
            named(Path(given))
    if target is not None and (folder := _folder(target)) is not None:
        _once(target, "--run-dir", run_dir)
        run_dir = str(folder)
    elif target is not None:
        _once(target, "--config", None if file is None else str(file))
        if not os.path.exists(target):
            raise Failure(
                f"{target}: no such file or directory; expected a config or the directory of a run{_near(target)}"
            )
        file = Path(target)
    if file is None and run_dir is not None and _is_run(Path(run_dir)):
        RunDir.read(Path(run_dir))  # refuses a config that the run did not write
        file = Path(run_dir, "config.yaml")
    config = loading.load(file, list(sets or ()))
    root = Path(run_dir) if run_dir is not None else default_root(config)
    return config, root


def existing(run: str | None, run_dir: str | None = None, file: Path | None = None) -> Path:
    """The run to look at: the one named (as an argument, or as the directory that a config was told to work in), the
    one that a config makes, or of those in runs/ the one that works now, else the last that did, which is told."""
    if run is not None:
        _once(run, "--run-dir", run_dir)
        _once(run, "--config", None if file is None else str(file))
    if (place := run if run is not None else run_dir) is not None:
        name = str(named(Path(place)))
        return _folder(name) or Path(name)
    if file is not None:
        return default_root(loading.load(file))
    found = every(RUNS)
    if not found:
        raise Failure(f"no run in {RUNS}/; name the directory of one, or make one with `propose run`")
    newest = max(
        found, key=lambda root: (in_use(root), survey.last_sign(root) or (root / "config.yaml").stat().st_mtime)
    )
    if len(found) > 1:
        screens.tell(
            f"{newest}: of {len(found)} in {RUNS}/, the one that {'works now' if in_use(newest) else 'worked last'}"
        )
    return newest


def uri(*given: str | None) -> str | None:
    """That of a mirror, where one was named."""
    return next((name for name in given if name is not None and "://" in name), None)


def every(folder: Path) -> list[Path]:
    """The runs in a folder."""
    return sorted(path.parent for path in folder.glob("*/config.yaml"))


def shown(path: Path) -> str:
    """A path as all screens write it: from here where it lies below, else whole."""
    path = path.absolute()
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) and path != here else str(path)


def _folder(name: str) -> Path | None:
    """The directory that a name means, if it means one: a path, or the name of a run in runs/."""
    path = Path(name)
    if os.path.isdir(path):
        return path
    inside = RUNS / name
    return inside if path.name == name and not os.path.exists(path) and _is_run(inside) else None


def _is_run(root: Path) -> bool:
    return os.path.isfile(root / "config.yaml")


def _once(target: str, option: str, value: str | None) -> None:
    if value is not None:
        raise Failure(f"{target} and {option} {value}: said twice; expected one of the two")


def _near(name: str) -> str:
    there = [str(path) for path in (*Path().glob("*.y*ml"), *every(RUNS))]
    names = {Path(path).name: path for path in there} | {path: path for path in there}
    close = get_close_matches(name, names, n=1)
    return f"; did you mean {names[close[0]]}?" if close else ""
