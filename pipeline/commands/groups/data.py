"""One command a stage of a run, which takes what the stages before left in the run directory."""

from __future__ import annotations

from pipeline.commands.groups.base import DATA, command, plan_keys, work_on
from pipeline.commands.keys import STAGE_KEYS
from pipeline.store.run_stages import RUN_STAGES

for _name, _stage in RUN_STAGES.items():
    command(
        _name,
        DATA,
        _stage.summary,
        lambda name=_name: STAGE_KEYS[name],  # type: ignore[misc]
        more=plan_keys,
    )(work_on([_name]))
