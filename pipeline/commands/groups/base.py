"""What the groups of commands share: the application, how a command is registered, how a run is driven and told of.

Exit codes, which scripts and a cluster's back-off may rely on:

    0    done
    1    a fault of ours; the line names the file that holds its traceback
    2    wrong input: stderr says what to change; the same command would end the same way
    75   worth a retry: infrastructure failed; the same command goes on from what is on disk
    130  interrupted; the same command goes on
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.commands import options as o
from pipeline.commands import screens, tables, target
from pipeline.commands.keys import PLAN_KEYS
from pipeline.config import Config
from pipeline.store.rundir import RunDir
from pipeline.watch import verbosity

OK, FAULT, INPUT, RETRY, INTERRUPTED = 0, 1, 2, 75, 130
MEANS = {OK: "done", FAULT: "a fault of ours", INPUT: "wrong input", RETRY: "worth a retry", INTERRUPTED: "interrupted"}

EVERYDAY, DATA, CLUSTER, DIAGNOSIS = "Everyday", "Data and training, a stage at a time", "Cluster", "Diagnosis"


class Interrupted(Exception):
    """By Ctrl-C or SIGTERM, where it is not the same command that goes on; says which one does."""


app = typer.Typer(
    name="propose",
    cls=screens.in_order((EVERYDAY, DATA, CLUSTER, DIAGNOSIS)),
    help="Train an agent that writes hard, verified problems; make data sets and better solvers with it.",
    epilog="Begin with `propose doctor`, then `propose run`. The same command resumes a run that was interrupted.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def command(
    name: str,
    group: str | None,
    help: str,
    keys: screens.Keys | None = None,
    of: typer.Typer = app,
    more: screens.More | None = None,
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Register a function as a command; what it returns is the exit code. `keys` are those of its JSON, which its help
    lists, after the tables of `more`."""
    cls = screens.listing(keys, more) if keys is not None else screens.Command
    sentence = f"{help[0].upper()}{help[1:]}."
    return of.command(name, help=sentence, short_help=help.partition(".\n")[0], rich_help_panel=group, cls=cls)


def _version(wanted: bool) -> None:
    if wanted:
        from pipeline.commands import project

        print(f"propose {project.version()}")
        raise typer.Exit()


@app.callback()
def _every_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version", show_default=False)
    ] = False,
) -> None:
    pass


def say(text: str) -> None:
    """Tell of progress, unless asked to be quiet."""
    if not verbosity.quiet():
        print(text, file=sys.stderr, flush=True)


def work_on(stages: Sequence[str]) -> Callable[..., int]:
    """The function of a command that does stages."""

    def run(
        name: o.Target = None,
        config: o.ConfigFile = None,
        sets: o.Set = None,
        run_dir: o.RunDir = None,
        dry_run: o.DryRun = False,
        as_json: o.Json = False,
        verbose: o.Verbose = False,
        quiet: o.Quiet = False,
    ) -> int:
        return work(*target.of(name, config, sets, run_dir), stages, dry_run, as_json)

    return run


def plan_keys() -> Mapping[str, Mapping[str, str]]:
    return {"keys of --json with --dry-run": PLAN_KEYS}


def work(
    config: Config,
    root: Path,
    stages: Sequence[str],
    dry_run: bool,
    as_json: bool,
    render: Callable[[Mapping[str, Any]], str] | None = None,
) -> int:
    """Run stages and write the report, or say what that would be. Of a single stage its result is printed, as `render`
    shows it to people."""
    if dry_run:
        from pipeline.commands import plan

        found = plan.plan(config, root, stages)
        print(json.dumps(found) if as_json else plan.render(found, target.shown))
        return INPUT if found["refused"] else OK
    from pipeline.commands import summary

    run, results = finish(config, root, stages)
    if len(stages) == 1:
        print_result(as_json, results[stages[0]], render)
    else:
        print(json.dumps(summary.of(run)) if as_json else summary.render(run, config, target.shown))
    return OK


def finish(config: Config, root: Path, stages: Sequence[str]) -> tuple[RunDir, Mapping[str, Any]]:
    """Run stages, as far as they are not done, and write the report; returns their results."""
    from pipeline.store import survey

    done = survey.finished(config, root, stages)
    if done is None:
        from pipeline.commands import preflight

        for line in preflight.check(config, root, stages):
            say(line)
        from pipeline.commands.driver import drive  # Ray and torch, seconds that a refusal need not wait for

        results = drive(config, root, list(stages))
        run = _report(config, root)
    else:
        from pipeline.store.verify import product_of

        run, results = done
        for stage in stages:
            product_of(run, stage)
            say(f"{stage} · done before, skipped")
        if config.mirror is not None or not run.path("report.html").exists():  # what an interrupt left undone
            _report(config, root)
    return run, results


def _report(config: Config, root: Path) -> RunDir:
    """Write the pages of a run that is opened for it, not only read, so that its mirror gets them too."""
    from pipeline import report

    run = RunDir.open(root, config)
    try:
        report.write(run)
    finally:
        run.close()
    return run


def print_result(
    as_json: bool, result: Mapping[str, Any], render: Callable[[Mapping[str, Any]], str] | None = None
) -> None:
    if as_json or render is not None:
        print(json.dumps(result) if as_json or render is None else render(result))
        return
    print(tables.outline(result, lambda text: target.shown(Path(text)) if os.path.isabs(text) else text))
