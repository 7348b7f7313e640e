"""Whether there is room for what a config reserves: GPUs in each stage, memory for what is served and trained; and
whether the trainer can carry the models that it is to train.

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
from pipeline.config import Config, ModelConfig
from pipeline.domains import hub
from pipeline.records import Failure
from pipeline.store.run_stages import RUN_STAGES
from trainers.architectures import experts, obstacle

_GB = 1e9
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
    if "solve" in left and config.evaluate.model is None:
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
        settings = _settings(config, model)
        longest = config.episode.limits.max_tokens
        if field == "solve.base":  # statement and answer
            longest = model.engine.max_model_len or config.solve.sampling.max_tokens
        if (why := obstacle(settings, longest)) is not None:
            yield Check("model", "fail", f"{field}.path {model.path}: cannot be trained: {why}", f"change {field}.path")
        transport = model.engine.weight_transport
        if experts(settings) and transport != "object_store":
            found = f"{field}.engine.weight_transport {transport}: {model.path} is a mixture of experts"
            yield Check("model", "fail", found, "expected object_store, which alone knows experts by their names")


def _settings(config: Config, model: ModelConfig) -> dict[str, Any]:
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
        up |= {one.field: one for one in _pools(config, stage) if one.model and one.model.endpoint is None}
        trainer: list[Reserved] = []
        if config.trainer.use_gpu and stage in trainers:
            _, model = trainers[stage]
            each = 1.0 - model.pool.num_gpus if model.engine.weight_transport == "ipc" and stage != "sft" else 1.0
            trainer = [Reserved("trainer", None, each * config.trainer.workers, each * config.trainer.workers)]
        found[stage] = [*trainer, *up.values()]
    return found


def _pools(config: Config, stage: str) -> Iterator[Reserved]:
    if stage in _JUDGED or (stage == "sft" and config.sft.data is None):
        yield from (_pool(f"prober.ladder.{i}", model) for i, model in enumerate(config.prober.ladder))
        if config.committee.judge is not None:
            yield _pool("committee.judge", config.committee.judge)
    if stage in _JUDGED:
        writer = config.synthesize.proposer if stage == "synthesize" else None
        yield _pool("proposer", writer or config.proposer)
    if stage == "evaluate" and config.evaluate.model is not None:
        yield _pool("evaluate.model", config.evaluate.model)
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


# ---------------------------------------------------------------- memory


def memory(config: Config, stages: Sequence[str], gpu_bytes: int | None, host_bytes: int | None) -> Iterator[Check]:
    """Weights and the trainer's states against the smallest GPU and this machine's memory (None: not known, as those of
    a cluster). Activations, and the KV cache on a GPU, come on top."""
    on_host: dict[str, float] = {}
    for stage, parts in reserved(config, stages).items():
        on_host[stage] = sum(_on_host(config, one.model) for one in parts if one.model)
    for field, need in _trainers(config, stages).items():
        workers, where = config.trainer.workers, "GPU" if config.trainer.use_gpu else "process"
        found = f"training {field} takes {need / _GB:.1f} GB on each of {workers} {where}s, before activations"
        if not config.trainer.use_gpu:
            for stage in (stage for stage, of, _ in trained(config, stages) if of == field):
                on_host[stage] += need * workers
        if config.trainer.use_gpu and gpu_bytes is not None and need > gpu_bytes:
            here = f"a GPU here has {gpu_bytes / _GB:.0f} GB"
            todo = f"{here}: more trainer.workers, trainer.zero_stage 3, or a smaller model"
            yield Check("memory", "fail", found, todo)
        else:
            yield Check("memory", "ok", found)
    if gpu_bytes is not None:
        yield from _engines(config, stages, gpu_bytes)
    largest = max(on_host, key=lambda stage: on_host[stage], default=None)
    if largest is not None and host_bytes is not None and on_host[largest] > host_bytes:
        found = (
            f"{largest} takes {on_host[largest] / _GB:.1f} GB of this machine's memory: weights, KV cache, the trainer"
        )
        todo = f"{host_bytes / _GB:.1f} GB are free: a smaller model, engine.kv_cache_gb, or fewer replicas"
        yield Check("memory", "fail", found, todo)


def _on_host(config: Config, model: ModelConfig) -> float:
    """Bytes that the first replicas of a pool on CPUs take: weights and KV cache."""
    if model.pool.num_gpus:
        return 0.0
    return ((weights(config, model) or 0) + model.engine.kv_cache_gb * 2**30) * model.pool.at_first


def _trainers(config: Config, stages: Sequence[str]) -> dict[str, float]:
    """Field -> bytes that a worker takes to train that model, of those whose size is known."""
    found: dict[str, float] = {}
    for stage, field, model in trained(config, stages):
        size = weights(config, model) if model.endpoint is None else None
        if size is not None:
            objective = {"mgpo": config.mgpo.objective, "solve": config.solve.objective}.get(stage)
            frozen = objective is not None and bool(getattr(objective, "beta", 0) or getattr(objective, "kl", 0))
            found[field] = max(
                found.get(field, 0.0), a_worker(size, config.trainer.zero_stage, config.trainer.workers, frozen)
            )
    return found


def a_worker(weights: int, zero_stage: int, workers: int, reference: bool) -> float:
    """Bytes of a training process, for bfloat16 weights of so many: those, float32 ones, two moments, gradients, and
    the frozen reference, which each process has whole. Also with zero_stage 3 each has all weights once, as it begins.
    """
    gradients = 2 if zero_stage >= 2 else 1  # float32 from stage 2 on
    whole = {0: 1 + gradients + 6, 1: 1 + gradients, 2: 1, 3: 0}[zero_stage]
    shared = {0: 0, 1: 6, 2: gradients + 6, 3: 1 + gradients + 6}[zero_stage]
    steady = weights * (whole + shared / workers)
    return max(steady, weights) + (weights if reference else 0)


def _engines(config: Config, stages: Sequence[str], gpu_bytes: int) -> Iterator[Check]:
    """Models whose weights alone are more than the GPUs of a replica have for them."""
    served = {one.field: one.model for parts in reserved(config, stages).values() for one in parts}
    for field, model in served.items():
        size = weights(config, model) if model is not None and model.pool.num_gpus else None
        if model is None or size is None:
            continue
        tp, share = model.engine.tensor_parallel_size, model.engine.gpu_memory_utilization
        if size / tp > share * gpu_bytes:
            found = f"{field}: {size / tp / _GB:.1f} GB of weights on each GPU, for which it has {share:.0%}"
            todo = f"a GPU here has {gpu_bytes / _GB:.0f} GB: a larger {field}.engine.tensor_parallel_size"
            yield Check("memory", "fail", found, todo)


def smallest(found: Sequence[Mapping[str, str]]) -> int | None:
    """Bytes of the smallest of these GPUs; None where there are none."""
    return min((int(gpu["memory_mb"]) << 20 for gpu in found), default=None)
