"""One command a stage of a run, which takes what the stages before left in the run directory."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.commands import options as o
from pipeline.commands import target
from pipeline.commands.groups.base import DATA, command, work
from pipeline.commands.keys import STAGE_KEYS
from pipeline.store.run_stages import RUN_STAGES


def _stage_command(stage: str) -> Callable[..., int]:
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
        return work(*target.of(name, config, sets, run_dir), [stage], dry_run, as_json)

    return run


for _name, _stage in RUN_STAGES.items():
    command(_name, DATA, _stage.summary, lambda name=_name: STAGE_KEYS[name])(_stage_command(_name))  # type: ignore[misc]
