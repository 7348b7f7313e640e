"""`propose acquire RUN --with proposer`: the agent that a run has trained reads documents in its teacher's place.

    runs/<name>-by-proposer-<digest>/   the same config, whose `acquire.proposer` is the run's last checkpoint
    runs/<name>-by-teacher-<digest>/    with `both`: the same documents, read by the teacher

Invariant: the run itself is only read. Each extraction is a run directory of its own beside it, which the same command
resumes, and whose library the stages of other runs can take.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pipeline.config import Config, loading
from pipeline.records import Failure
from pipeline.scoring.extractions import Extraction, compare
from pipeline.skills import candidates
from pipeline.skills.extraction import SkillLibrary
from pipeline.store.identity import default_root
from pipeline.store.rundir import RunDir

By = Literal["proposer", "teacher"]
_TRAINED = ("mgpo", "sft")
"""Stages that leave a proposer, the last one first."""


def run_of(root: Path, sets: Sequence[str], by: By) -> tuple[Config, Path]:
    """The config and the directory of an extraction. Raises Failure where the run has trained no proposer."""
    run, config = RunDir.read(root)
    given = [f"name={config.name}-by-{by}", "mirror=null"]
    if by == "proposer":
        done = next((found for stage in _TRAINED if (found := run.result(stage)) is not None), None)
        if done is None:
            raise Failure(f"{root}: no proposer is trained there; run `propose sft {root}` first")
        model = json.loads(config.proposer.model_dump_json()) | {"path": done["result"]["checkpoint"]}
        given.append(f"acquire.proposer={json.dumps(model)}")
    made = loading.load(run.path("config.yaml"), [*given, *sets])
    return made, root.parent / default_root(made).name


def compared(teacher: Path, proposer: Path) -> dict[str, Any]:
    """The two extractions of the same documents. Raises Failure where they are not."""
    documents = {_documents(root) for root in (teacher, proposer)}
    if len(documents) > 1:
        raise Failure(f"{teacher} and {proposer}: read other documents ({documents}); expected the same corpus")
    return compare(_extraction(teacher), _extraction(proposer), documents.pop())


def _documents(root: Path) -> int:
    done = RunDir.read(root)[0].result("acquire")
    assert done is not None, "the stage has just ended"
    return int(done["result"]["documents"])


def _extraction(root: Path) -> Extraction:
    library = root / "skills"
    return Extraction(list(SkillLibrary.load(library)), candidates.read(library))
