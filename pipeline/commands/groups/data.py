"""One command a stage of a run, which takes what the stages before left in the run directory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from pipeline.commands import options as o
from pipeline.commands import target
from pipeline.commands.groups.base import DATA, OK, command, finish, plan_keys, print_result, work, work_on
from pipeline.commands.keys import EXTRACTION_KEYS, STAGE_KEYS
from pipeline.records import Failure
from pipeline.store.run_stages import RUN_STAGES


def _acquire_keys() -> Mapping[str, Mapping[str, str]]:
    return {**plan_keys(), "keys of --json with --with both": EXTRACTION_KEYS}


@command("acquire", DATA, RUN_STAGES["acquire"].summary, lambda: STAGE_KEYS["acquire"], more=_acquire_keys)
def _acquire(
    name: o.Target = None,
    config: o.ConfigFile = None,
    sets: o.Set = None,
    run_dir: o.RunDir = None,
    by: Annotated[
        str,
        o.choice(
            "--with",
            of=("teacher", "proposer", "both"),
            help="who reads; proposer: the one that RUN has trained, in a run of its own beside it; both: compared",
        ),
    ] = "teacher",
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
) -> int:
    if by == "teacher":
        return work(*target.of(name, config, sets, run_dir), ["acquire"], dry_run, as_json)
    from pipeline.commands import extract

    if config is not None:
        raise Failure("--config: with --with proposer or both, expected the run that has trained one")
    root, given = target.existing(name, run_dir), list(sets or ())
    if by == "proposer" or dry_run:
        return work(*extract.run_of(root, given, "proposer"), ["acquire"], dry_run, as_json)
    readers: tuple[extract.By, ...] = ("teacher", "proposer")
    made = [extract.run_of(root, given, who) for who in readers]
    for one in made:
        finish(*one, ["acquire"])
    print_result(as_json, extract.compared(*(place for _, place in made)))
    return OK


@command("evaluate", DATA, RUN_STAGES["evaluate"].summary, lambda: STAGE_KEYS["evaluate"], more=plan_keys)
def _evaluate(
    name: o.Target = None,
    config: o.ConfigFile = None,
    sets: o.Set = None,
    run_dir: o.RunDir = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="a folder, a name on the Hub, or MODEL@http://host:8000/v1, in place of the solver; may be given "
            "often, and each is compared with those before it",
            show_default=False,
        ),
    ] = None,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
) -> int:
    from pipeline.commands import measured

    made = measured.of(name, config, sets, run_dir, model) if model else target.of(name, config, sets, run_dir)
    return work(*made, ["evaluate"], dry_run, as_json, lambda result: measured.render(result, target.shown))


for _name, _stage in list(RUN_STAGES.items())[1:-1]:
    command(
        _name,
        DATA,
        _stage.summary,
        lambda name=_name: STAGE_KEYS[name],  # type: ignore[misc]
        more=plan_keys,
    )(work_on([_name]))
