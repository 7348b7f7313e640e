"""Whether there are GPUs for what a config reserves in each stage, and whether the trainer can carry the models that it
is to train. (`memory` says what processes hold.)

Invariant: only looks, and computes. A stage's pools are those that `pools.cluster` has while it runs, those of earlier
stages included that stay; a model whose size nothing here says is left out, never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import domains
from pipeline.commands.doctor_config import Check
from pipeline.config import Config, ModelConfig, ModelTeacherConfig
from pipeline.domains import hub
from pipeline.records import Failure
from pipeline.store.run_stages import RUN_STAGES
from trainers.architectures import experts, linear_layers, obstacle, unadaptable

_JUDGED = ("mgpo", "synthesize")
"""Stages that judge and probe what is written, beside `sft` where it plays."""


def trained(config: Config, stages: Collection[str]) -> Iterator[tuple[str, str, ModelConfig]]:
    """(stage, field, model) of each of these stages that trains one."""
    for stage in stages:
        if stage == "solve":
            yield stage, "solve.base", config.solve.base
        elif stage in ("sft", "mgpo"):
            yield stage, "proposer", config.proposer


def possible(config: Config) -> list[str]:
    """The stages that do not train a model behind an endpoint, nor need what such a stage makes."""
    left = {stage for stage, _, model in trained(config, RUN_STAGES) if model.endpoint is not None}
    if "solve" in left and not config.evaluate.alone():
        left.add("evaluate")
    return [stage for stage in RUN_STAGES if stage not in left]


def weights(config: Config, model: ModelConfig) -> int | None:
    """Bytes of a model's weights; None where they are not known."""
    try:
        files = hub.weights(domains.of(config.domain).model(model.path, download=False))
    except (Failure, ModuleNotFoundError):
        return None
    return sum(file.stat().st_size for file in files if file.exists()) or None


# ---------------------------------------------------------------- what the trainer can carry


def untrainable(config: Config, stages: Collection[str]) -> Iterator[Check]:
    """Models that are to be trained and cannot be: their weights are not here, or the trainer has no way with them."""
    for field, model in {field: model for _, field, model in trained(config, stages)}.items():
        if model.endpoint is not None:
            found = f"{field}.endpoint: a model behind an endpoint cannot be trained"
            yield Check("model", "fail", found, f"expected {field}.path alone")
            continue
        settings = settings_of(config, model)
        if (why := obstacle(settings, longest(config, field, model))) is not None:
            yield Check("model", "fail", f"{field}.path {model.path}: cannot be trained: {why}", f"change {field}.path")
        if (why := _unadaptable(config, settings, model)) is not None:
            yield Check("model", "fail", f"trainer.lora: {field}.path {model.path}: {why}", "change trainer.lora")
        transport = model.engine.weight_transport
        if experts(settings) and transport != "object_store":
            found = f"{field}.engine.weight_transport {transport}: {model.path} is a mixture of experts"
            yield Check("model", "fail", found, "expected object_store, which alone knows experts by their names")


def _unadaptable(config: Config, settings: Mapping[str, Any], model: ModelConfig) -> str | None:
    """Why this model cannot get the adapter that the config asks for; None where it can, or its weights are not here:
    then the trainer says it."""
    lora = config.trainer.lora
    if lora is None:
        return None
    try:
        files = hub.weights(domains.of(config.domain).model(model.path, download=False))
        layers = linear_layers(file for file in files if file.suffix == ".safetensors")
    except (Failure, ModuleNotFoundError, OSError, ValueError, RecursionError):
        return None
    return unadaptable(settings, layers, lora.targets) if layers else None


def longest(config: Config, field: str, model: ModelConfig) -> int:
    """Tokens of the longest trajectory: an episode, or a statement with its answer."""
    if field == "solve.base":
        return model.engine.max_model_len or config.solve.sampling.max_tokens
    return config.episode.limits.max_tokens


def settings_of(config: Config, model: ModelConfig) -> dict[str, Any]:
    """A model's `config.json`; {} where there is none yet, which the checks of models tell."""
    try:
        folder = domains.of(config.domain).model(model.path, download=False)
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (Failure, ModuleNotFoundError, OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


# ---------------------------------------------------------------- GPUs


@dataclass(frozen=True)
class Reserved:
    """What a pool or the trainer has in a stage."""

    field: str
    model: ModelConfig | None
    """None: the trainer."""
    least: float
    """GPUs at its first replicas; of a pool that may be empty, at one."""
    most: float
    """GPUs under full load."""


def _pool(field: str, model: ModelConfig) -> Reserved:
    pool = model.pool
    return Reserved(field, model, pool.num_gpus * pool.at_first, pool.num_gpus * pool.max_replicas)


def _least(parts: Sequence[Reserved]) -> float:
    """GPUs without which a stage cannot be done: pools that may be empty take turns."""
    turns = [one.least for one in parts if one.model is not None and one.model.pool.min_replicas == 0]
    return sum(one.least for one in parts) - sum(turns) + max(turns, default=0.0)


def reserved(config: Config, stages: Sequence[str]) -> dict[str, list[Reserved]]:
    """What is up in each of these stages, done one after another: pools stay up, until `solve` takes those down that
    write, and those that judge on GPUs."""
    found: dict[str, list[Reserved]] = {}
    up: dict[str, Reserved] = {}
    trainers = {stage: (field, model) for stage, field, model in trained(config, stages)}
    for stage in stages:
        if stage == "solve":
            up = {} if config.judged_on_gpus else {f: one for f, one in up.items() if f != "proposer"}
        if stage in _JUDGED:  # what teaches was taken down when it had
            up = {f: one for f, one in up.items() if not f.startswith("teacher")}
        up.pop("acquire.proposer", None)
        up |= {one.field: one for one in _pools(config, stage) if one.model and one.model.endpoint is None}
        trainer: list[Reserved] = []
        if config.trainer.use_gpu and stage in trainers:
            _, model = trainers[stage]
            each = 1.0 - model.pool.num_gpus if model.engine.weight_transport == "ipc" and stage != "sft" else 1.0
            trainer = [Reserved("trainer", None, each * config.trainer.workers, each * config.trainer.workers)]
        found[stage] = [*trainer, *up.values()]
    return found


def _pools(config: Config, stage: str) -> Iterator[Reserved]:
    rewrites = stage == "synthesize" and config.synthesize.rewrite is not None
    if stage == "acquire" or rewrites or (stage == "sft" and config.sft.data is None):
        for field, (_, teacher) in config.teacher.each().items():
            if isinstance(teacher, ModelTeacherConfig):
                yield _pool(f"{field}.model", teacher.model)
    if stage == "acquire" and config.acquire.proposer is not None:
        yield _pool("acquire.proposer", config.acquire.proposer)
    if stage in _JUDGED or (stage == "sft" and config.sft.data is None):
        yield from (_pool(f"prober.ladder.{i}", model) for i, model in enumerate(config.prober.ladder))
        if config.committee.judge is not None:
            yield _pool("committee.judge", config.committee.judge)
    if stage in _JUDGED:
        if rewrites:
            return
        writer = config.synthesize.proposer if stage == "synthesize" else None
        yield _pool("proposer", writer or config.proposer)
    if stage == "evaluate" and (alone := config.evaluate.alone()):  # one after the other
        yield max((_pool(field, model) for field, model in alone.items()), key=lambda one: one.most)
    elif stage in ("solve", "evaluate"):
        yield _pool("solve.base", config.solve.base)


def gpus(config: Config, stages: Sequence[str], there: int) -> Iterator[Check]:
    """The stage that reserves the most, against the GPUs of this machine; nothing where none reserves any."""
    up = reserved(config, stages)
    most = {stage: sum(one.most for one in parts) for stage, parts in up.items()}
    if not any(most.values()):
        return
    stage = max(most, key=lambda stage: most[stage])
    named = ", ".join(f"{one.field} {one.most:g}" for one in up[stage] if one.most)
    found = f"{stage} takes {most[stage]:g} GPUs: {named}"
    least = {stage: _least(parts) for stage, parts in up.items()}
    detail = {"most": most, "least": least, "there": there}
    if config.ray.joined is not None:
        yield Check("reserved", "ok", f"{found}; of the cluster at {config.ray.joined}", detail=detail)
    elif max(least.values()) > there:
        todo = f"this machine has {there}: fewer trainer.workers and replicas, or ray.address of a cluster"
        yield Check("reserved", "fail", found, todo, detail)
    elif most[stage] > there:
        todo = f"this machine has {there}: some pools cannot grow to max_replicas"
        yield Check("reserved", "warn", found, todo, detail)
    else:
        yield Check("reserved", "ok", f"{found}, of {there}", detail=detail)


def smallest(found: Sequence[Mapping[str, str]]) -> int | None:
    """Bytes of the smallest of these GPUs; None where there are none."""
    return min((int(gpu["memory_mb"]) << 20 for gpu in found), default=None)
