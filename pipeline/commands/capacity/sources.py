"""Where times come from, and what a run did that a plan can be held against."""

from __future__ import annotations

from pathlib import Path

from pipeline.commands.capacity import times as given
from pipeline.commands.capacity.calibration import STAGES, calibrate, recorded
from pipeline.commands.capacity.plan import Rate
from pipeline.commands.capacity.times import Times
from pipeline.records import Failure
from pipeline.store.rundir import RunDir


def times(root: Path | None, file: Path | None, stage: str) -> Times:
    """Those of a run's stage (of the other one, where it has not done that), or of a file. Raises Failure."""
    if (root is None) == (file is None):
        raise Failure("times: expected one of --from RUN, whose times they are, and --times FILE, which gives them")
    if file is not None:
        return given.read(file)
    assert root is not None
    run, config = RunDir.read(root)
    done = [s for s in (stage, *STAGES) if run.steps(s)]
    return calibrate(run, config, done[0] if done else stage)


def measured(root: Path, stage: str) -> Rate | None:
    """What the run in a directory did in a stage; None where there is none whose journals tell it."""
    if not (root / "config.yaml").is_file():
        return None
    run, _ = RunDir.read(root)
    found = recorded(run, stage)
    return Rate(len(found.ways), found.seconds) if found.steps else None
