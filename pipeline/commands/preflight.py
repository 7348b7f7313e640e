"""What is checked before a run makes its first file: run directory, inputs of the stages, models, corpus, benchmark,
endpoints, room on the disk.

Invariant: only looks. What fails here would have failed the run later; all of it is told at once. A stage that is done
needs nothing any more, so that a finished run is never refused for a model that has gone.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline import domains
from pipeline.commands import room
from pipeline.commands.doctor_config import Check, models_of, named
from pipeline.config import Config, ModelConfig
from pipeline.domains import hub
from pipeline.pools import gpus
from pipeline.records import Failure
from pipeline.store import survey
from pipeline.store.files import writing
from pipeline.store.run_stages import RUN_STAGES
from pipeline.store.rundir import RunDir, refuse_foreign

_GB = 1e9
_BYTES_A_WEIGHT_BYTE = 7
"""A checkpoint holds bfloat16 weights, float32 ones, and two moments of the optimizer."""
_OF_AN_ADAPTER = 2
"""With LoRA, the weights alone; in float32 where the trainer has them so."""

_NEEDED_BY = {
    "acquire.corpus": ("acquire",),
    "acquire.proposer": ("acquire",),
    "teacher": ("acquire", "sft"),
    "evaluate.benchmark": ("evaluate",),
    "proposer.path": ("sft",),
    "solve.base.path": ("solve", "evaluate"),
    "synthesize.proposer": ("synthesize",),
    "synthesize.avoid": ("synthesize",),
    "evaluate.model": ("evaluate",),
    "evaluate.models": ("evaluate",),
    "committee.judge.path": ("sft", "mgpo", "synthesize"),
    "prober.ladder": ("sft", "mgpo", "synthesize"),
}
"""Folders and files that the config names -> the stages that use them. (A committee without a judge of its own asks a
prober.)"""


def refuse(config: Config, root: Path) -> None:
    """Raises Failure where the run directory can be none of this config's."""
    if "://" in str(root) or ":/" in str(root):
        raise Failure(f"run directory {root}: expected a local path; object storage can be its `mirror`")
    with writing(root), contextlib.suppress(FileNotFoundError):
        os.stat(root)
    refuse_foreign(root)
    if os.path.isfile(root / "config.yaml") and ((root / "steps").exists() or (root / "stages").exists()):
        survey.refuse_other(config, root)


def check(config: Config, root: Path, stages: Sequence[str], again: Sequence[str] = ()) -> list[str]:
    """Raises Failure with everything that would stop these stages, before anything is made; returns lines on what would
    not. Stages of `again` are to be done although they are done."""
    refuse(config, root)
    found = list(problems(config, root, stages, again))
    failed = [c for c in found if c.status == "fail"]
    if not failed:
        return [f"{c.name} · {c.found}; {c.todo}" for c in found]
    passing = all(c.detail.get("kind") == "infra_error" for c in failed)
    lines = [f"{c.name}: {c.found}" + (f"; {c.todo}" if c.todo else "") for c in failed]
    text = lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} things keep this run from starting", *lines])
    raise Failure(text, "infra_error" if passing else "data_error")


def download(config: Config, stages: Sequence[str]) -> Iterator[str]:
    """Fetch the models that these stages name on the Hub and that are not here; says so first. Raises Failure."""
    domain = domains.of(config.domain)
    for name in dict.fromkeys(model.path for model in loaded(config, stages).values()):
        if domain.on_the_hub(name) and hub.cached(name) is None:
            yield f"{name}: {hub.size(name) / 1e9:.1f} GB to download"
            hub.download(name)


def problems(config: Config, root: Path, stages: Sequence[str], again: Sequence[str] = ()) -> Iterator[Check]:
    """The checks that fail, and those of endpoints that are not as they should be."""
    run = RunDir(root)
    todo = [stage for stage in stages if stage in again or run.result(stage) is None]
    if not todo:
        return
    before = RUN_STAGES[todo[0]].after
    restored = config.mirror is not None and not run.path("config.yaml").exists()  # from a mirror, which may have it
    if (
        before is not None
        and not _alone(config, todo[0])
        and before not in stages
        and run.result(before) is None
        and not restored
    ):
        yield Check(
            "stages", "fail", f"run directory {root}: stage {before} is not done", f"run `propose {before}` first"
        )
    yield from _place(root)
    yield from room.untrainable(config, todo)
    yield from room.above_limit(config, todo)
    tried = named(config, lambda field: needed(config, field, todo), todo)
    yield from (c for c in tried if c.status == "fail" or (c.status, c.name) == ("warn", "endpoint"))
    yield from _disk(config, root, todo)


def loaded(config: Config, stages: Sequence[str]) -> dict[str, ModelConfig]:
    """The models whose folders these stages load, by the field that names them."""
    return models_of(config, lambda field: needed(config, field, stages))


def _alone(config: Config, stage: str) -> bool:
    """Whether a stage is given what it would else take from the one before it."""
    given = {
        "sft": config.sft.data,
        "synthesize": config.synthesize.rewrite or config.synthesize.proposer or config.proposer.endpoint,
        "solve": not config.solve.on_own_data,
        "evaluate": config.evaluate.alone(),
    }
    return bool(given.get(stage))


def needed(config: Config, field: str, todo: Sequence[str]) -> bool:
    """Whether these stages use what this field of the config names."""
    rewrites = config.synthesize.rewrite is not None and "synthesize" in todo
    if rewrites and (field == "teacher" or field.startswith("teacher.")):
        return True
    if _alone(config, "sft") and field != "proposer.path":
        todo = [stage for stage in todo if stage != "sft"]  # nothing is played, nobody judges
    if _alone(config, "evaluate") and field == "solve.base.path":
        todo = [stage for stage in todo if stage != "evaluate"]
    users = next((stages for name, stages in _NEEDED_BY.items() if field == name or field.startswith(f"{name}.")), None)
    return users is None or any(stage in todo for stage in users)


def _place(root: Path) -> Iterator[Check]:
    """The run directory can be written, and outlives the job: Ray deletes the package that it unpacked for one."""
    there = next(p for p in (root.absolute(), *root.absolute().parents) if os.path.exists(p))
    if not there.is_dir():
        yield Check("run directory", "fail", f"{there}: Not a directory", "expected a directory this user may write to")
    elif not os.access(there, os.W_OK | os.X_OK):
        yield Check("run directory", "fail", f"{there}: not writable", "expected a directory this user may write to")
    elif "runtime_resources" in root.absolute().parts:
        todo = "give a --run-dir on storage that all nodes share"
        yield Check("run directory", "fail", f"{root}: lies in what Ray unpacked for this job, and goes with it", todo)


def _disk(config: Config, root: Path, todo: Sequence[str]) -> Iterator[Check]:
    """Room for the checkpoints of the stages that train, and for what they write beside them."""
    trained = [(stage, _bytes(config, model)) for stage, _, model in gpus.trained(config, todo)]
    each = _OF_AN_ADAPTER if config.trainer.lora else _BYTES_A_WEIGHT_BYTE
    need = _GB + sum(size * each * _copies(config, stage) for stage, size in trained)
    there = next(p for p in (root.absolute(), *root.absolute().parents) if os.path.exists(p))
    free = shutil.disk_usage(there).free
    if free < need:
        found = f"{free / _GB:.1f} GB free in {there}, this run needs about {need / _GB:.0f} GB"
        yield Check("disk", "fail", found, "free some, or take another --run-dir", {"kind": "infra_error"})


def _copies(config: Config, stage: str) -> int:
    """Checkpoints of a stage that lie on the disk at once: with `solve.dev` all, until the best one is known. A warm-up
    has its own."""
    kept = config.trainer.keep_checkpoints + 1
    if stage != "solve":
        return kept
    warm = kept if config.solve.warmup is not None else 0
    return warm + (math.ceil(config.solve.steps / config.solve.checkpoint_every) if config.solve.dev else kept)


def _bytes(config: Config, model: ModelConfig) -> int:
    """Of a model's weights, here or on the Hub; 0 where they are not known."""
    known = room.weights(config, model)
    if known is None and domains.of(config.domain).on_the_hub(model.path):
        with contextlib.suppress(Failure):  # told with the models
            return hub.size(model.path)
    return known or 0
