"""Everyday commands: run, look at runs, do a stage again, begin a run from another."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands import options as o
from pipeline.commands import screens, target
from pipeline.commands.groups.base import EVERYDAY, OK, Interrupted, command, plan_keys, say, work, work_on
from pipeline.commands.keys import FORK_KEYS, REDO_KEYS, REPORT_TWO_KEYS, RUNS_KEYS, STATUS_KEYS, summary_keys
from pipeline.records import Failure
from pipeline.store.run_stages import RUN_STAGES
from pipeline.store.rundir import RunDir

command("run", EVERYDAY, "run all stages, skipping what is done, and write the report", summary_keys, more=plan_keys)(
    work_on(list(RUN_STAGES))
)


@command("runs", EVERYDAY, "list the runs of a folder: stage, age, size, state", lambda: RUNS_KEYS)
def _runs(
    folder: Annotated[Path, typer.Argument(help="where runs are", metavar="FOLDER")] = target.RUNS,
    as_json: o.Json = False,
) -> int:
    from pipeline.commands import status

    found = status.runs(folder)
    print(json.dumps(found) if as_json else status.render_runs(found))
    return OK


@command(
    "status", EVERYDAY, "say what runs now, since when, how far it is, and where the logs are", lambda: STATUS_KEYS
)
def _status(name: o.Run = None, run_dir: o.RunOnly = None, as_json: o.Json = False) -> int:
    from pipeline.commands import status

    found = status.status(target.existing(name, run_dir))
    print(json.dumps(found) if as_json else status.render(found, target.shown))
    return OK


@command("report", EVERYDAY, "write report.html of whatever a run directory holds, or of two runs a page side by side",
         summary_keys, more=lambda: {"keys of --json with two runs": REPORT_TWO_KEYS})  # fmt: skip
def _report(
    name: o.Run = None,
    other: Annotated[
        str | None,
        typer.Argument(metavar="OTHER", help="a run to hold it against", show_default=False, autocompletion=o._runs),
    ] = None,
    config: o.ConfigOfRun = None,
    run_dir: o.RunOnly = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="of two runs; default: report-A-B.html", show_default=False),
    ] = None,
    as_json: o.Json = False,
) -> int:
    from pipeline import report
    from pipeline.commands import compare, summary
    from pipeline.store import verify

    if name is not None and other is not None:
        if config or run_dir:
            raise Failure("--config, --run-dir: of one run; expected two by their names, without")
        found = compare.report(name, other, out)
        print(json.dumps(found, ensure_ascii=False) if as_json else compare.render_report(found))
        return OK
    if out is not None:
        raise Failure(f"--out {out}: only of two runs; a run's own page is its report.html")
    run, settings = RunDir.read(target.existing(name, run_dir, config))
    damaged = verify.verify(run, whole=False)  # before the summary is another, which tells of what there was
    try:
        report.write(run)
    finally:  # what the disk does not take can be told all the same
        print(json.dumps(summary.of(run)) if as_json else summary.render(run, settings, target.shown))
    for finding in damaged:
        screens.tell(f"report: {finding}; {verify.mend(run, finding)}")
    return OK


@command(
    "redo",
    EVERYDAY,
    "set a stage and those after it aside, and run them again",
    summary_keys,
    more=lambda: {"keys of --json with --no-run or --dry-run": REDO_KEYS},
)
def _redo(
    stage: o.Stage,
    name: o.Run = None,
    run_dir: o.RunOnly = None,
    only_reset: Annotated[
        bool, o.flag("--no-run", help="set them aside only; `propose run RUN` does the rest")
    ] = False,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
) -> int:
    from pipeline.commands import rework

    root = target.existing(name, run_dir)
    found = rework.redo(root, stage, dry_run, to_run=not only_reset)
    if dry_run or only_reset:
        print(json.dumps(found) if as_json else rework.render_redo(found, target.shown))
        return OK
    say(rework.render_redo(found, target.shown))
    try:
        return work(*target.of(str(root), None, None, None), list(RUN_STAGES), False, as_json)
    except KeyboardInterrupt:
        raise Interrupted(f"`propose run {shlex.quote(target.shown(root))}`") from None


@command("fork", EVERYDAY, "begin a run with other settings, sharing the stages that stay the same", lambda: FORK_KEYS)
def _fork(
    name: Annotated[str, typer.Argument(metavar="RUN", help="the run to begin from", autocompletion=o._runs)],
    sets: o.Set = None,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", metavar="DIR", help="of the new run; default: runs/<name>-<digest>")
    ] = None,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
) -> int:
    from pipeline.commands import rework

    found = rework.fork(target.existing(name), list(sets or ()), run_dir, dry_run)
    print(json.dumps(found) if as_json else rework.render_fork(found, target.shown))
    return OK
