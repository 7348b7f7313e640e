"""Whether there are GPUs for what a config reserves in each stage, and whether the trainer can carry the models that it
is to train. (`memory` says what processes hold.)

Invariant: only looks, and computes; a model whose size nothing here says is left out, never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from pipeline import domains
from pipeline.commands.doctor_config import Check
from pipeline.config import Config, ModelConfig
from pipeline.domains import hub
from pipeline.pools.gpus import least, lowest_limit, reserved, trained
from pipeline.records import Failure
from pipeline.store.run_stages import RUN_STAGES
from trainers.architectures import experts, linear_layers, obstacle, unadaptable


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


def above_limit(config: Config, stages: Sequence[str]) -> Iterator[Check]:
    """The stage that cannot be done with `ray.max_gpus`, if there is one."""
    limit, up = config.ray.max_gpus, reserved(config, stages)
    stage = max(up, key=lambda stage: lowest_limit(up[stage]), default=None)
    if limit is None or stage is None or (needed := lowest_limit(up[stage])) <= limit:
        return
    named = ", ".join(f"{one.field} {one.least if one.model else one.most:g}" for one in up[stage] if one.most)
    todo = f"ray.max_gpus ({limit}): fewer trainer.workers or min_replicas, or expected {needed:g} or more"
    yield Check("reserved", "fail", f"{stage} takes {needed:g} GPUs at least: {named}", todo)


def gpus(config: Config, stages: Sequence[str], there: int) -> Iterator[Check]:
    """The stage that reserves the most, against the GPUs of this machine; nothing where none reserves any."""
    up = reserved(config, stages)
    most = {stage: sum(one.most for one in parts) for stage, parts in up.items()}
    if not any(most.values()):
        return
    stage = max(most, key=lambda stage: most[stage])
    named = ", ".join(f"{one.field} {one.most:g}" for one in up[stage] if one.most)
    found = f"{stage} takes {most[stage]:g} GPUs: {named}"
    fewest = {stage: least(parts) for stage, parts in up.items()}
    detail = {"most": most, "least": fewest, "there": there}
    if beyond := list(above_limit(config, stages)):
        yield from beyond
        return
    if (limit := config.ray.max_gpus) is not None:
        found += f"; at most {limit} at once"
        most = {stage: min(float(limit), amount) for stage, amount in most.items()}
    if config.ray.joined is not None:
        yield Check("reserved", "ok", f"{found}; of the cluster at {config.ray.joined}", detail=detail)
    elif max(fewest.values()) > there:
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
