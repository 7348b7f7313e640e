"""What pools and the trainer hold of GPUs in each stage, as the config says, and how a limit for the whole run is kept.

Invariant: only computes. A stage's pools are those that `pools.cluster` has while it runs, those of earlier stages
included that stay.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from pipeline.config import Config, ModelConfig, ModelTeacherConfig
from pipeline.store.run_stages import RUN_STAGES

_JUDGED = ("mgpo", "synthesize")
"""Stages that judge and probe what is written, beside `sft` where it plays."""


def trained(config: Config, stages: Collection[str]) -> Iterator[tuple[str, str, ModelConfig]]:
    """(stage, field, model) of each of these stages that trains one."""
    for stage in stages:
        if stage == "solve":
            yield stage, "solve.base", config.solve.base
        elif stage in ("sft", "mgpo"):
            yield stage, "proposer", config.proposer


@dataclass(frozen=True)
class Reserved:
    """What a pool or the trainer has in a stage."""

    field: str
    pool: str
    """As `pools.catalogue` calls it."""
    model: ModelConfig | None
    """None: the trainer."""
    least: float
    """GPUs at its first replicas; of a pool that may be empty, at one."""
    most: float
    """GPUs under full load."""


def _pool(field: str, name: str, model: ModelConfig) -> Reserved:
    pool = model.pool
    return Reserved(field, name, model, pool.num_gpus * pool.at_first, pool.num_gpus * pool.max_replicas)


def least(parts: Sequence[Reserved]) -> float:
    """GPUs without which a stage cannot be done: pools that may be empty take turns."""
    turns = [one.least for one in parts if one.model is not None and one.model.pool.min_replicas == 0]
    return sum(one.least for one in parts) - sum(turns) + max(turns, default=0.0)


def reserved(config: Config, stages: Sequence[str]) -> dict[str, list[Reserved]]:
    """What is up in each of these stages, done one after another: pools stay up, until `solve` takes those down that
    write or teach, and those that judge on GPUs."""
    found: dict[str, list[Reserved]] = {}
    up: dict[str, Reserved] = {}
    trainers = {stage: (field, model) for stage, field, model in trained(config, stages)}
    for stage in stages:
        if stage == "solve":
            up = {} if config.judged_on_gpus else {f: one for f, one in up.items() if f != "proposer"}
        if stage in (*_JUDGED, "solve"):  # what teaches was taken down when it had
            up = {f: one for f, one in up.items() if not f.startswith("teacher")}
        up.pop("acquire.proposer", None)
        up |= {one.field: one for one in _pools(config, stage) if one.model and one.model.endpoint is None}
        trainer: list[Reserved] = []
        if config.trainer.use_gpu and stage in trainers:
            _, model = trainers[stage]
            each = 1.0 - model.pool.num_gpus if model.engine.weight_transport == "ipc" and stage != "sft" else 1.0
            fewest, most = config.trainer.fewest, config.trainer.workers
            trainer = [Reserved("trainer", "trainer", None, each * fewest, each * most)]
        found[stage] = [*trainer, *up.values()]
    return found


def _pools(config: Config, stage: str) -> Iterator[Reserved]:
    rewrites = stage == "synthesize" and config.synthesize.rewrite is not None
    if stage == "acquire" or rewrites or (stage == "sft" and config.sft.data is None):
        models = [(f, t.model) for f, (_, t) in config.teacher.each().items() if isinstance(t, ModelTeacherConfig)]
        yield from (_pool(f"{field}.model", f"teacher-model-{i}", model) for i, (field, model) in enumerate(models))
    if stage == "acquire" and config.acquire.proposer is not None:
        yield _pool("acquire.proposer", "extractor", config.acquire.proposer)
    if stage in _JUDGED or (stage == "sft" and config.sft.data is None):
        yield from (_pool(f"prober.ladder.{i}", f"solver-{i}", model) for i, model in enumerate(config.prober.ladder))
        if config.committee.judge is not None:
            yield _pool("committee.judge", "judge", config.committee.judge)
    if stage in _JUDGED:
        if rewrites:
            return
        writer = config.synthesize.proposer if stage == "synthesize" else None
        yield _pool("proposer", "proposer", writer or config.proposer)
    if stage == "evaluate" and (alone := config.evaluate.alone()):  # one after the other
        yield max((_pool(field, "measured", model) for field, model in alone.items()), key=lambda one: one.most)
    elif stage in ("solve", "evaluate"):
        yield _pool("solve.base", "student", config.solve.base)


def beside(config: Config, pool: str) -> list[dict[str, float]]:
    """For each stage that a pool is up in, what the others have there at the very least, by name: the trainer all of
    its workers, a pool that may be empty one replica, which Serve starts whoever else holds GPUs."""
    floors = []
    for parts in reserved(config, list(RUN_STAGES)).values():
        if any(one.pool == pool for one in parts):
            others = {one.pool: _floor(one) for one in parts if one.pool != pool}
            floors.append({name: floor for name, floor in others.items() if floor})
    return [floor for number, floor in enumerate(floors) if floor not in floors[:number]]


def lowest_limit(parts: Sequence[Reserved]) -> float:
    """The smallest `ray.max_gpus` that a stage can be done with."""
    return sum(map(_floor, parts))


def _floor(one: Reserved) -> float:
    return one.most if one.model is None else one.least
