"""What each process of a stage holds in memory, and whether there is room for it: `propose plan memory`, and `doctor`.

Invariant: only looks, and computes (`trainers.footprint`). A model whose sizes nothing here says is left out, never
guessed. On a GPU an engine takes the share that it is given, and its KV cache is what the weights leave of it. What
Python, its libraries and Ray take comes on top.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.commands import room
from pipeline.commands.doctor_config import Check
from pipeline.commands.tables import columns
from pipeline.config import Config, ModelConfig
from pipeline.pools import gpus
from trainers.footprint import Footprint, Settings, Shape, footprint

_GB = 1e9


@dataclass(frozen=True)
class Process:
    """One of `count` equal ones."""

    name: str
    count: int
    where: str
    """GPU, or memory: the machine's."""
    parts: dict[str, float]
    """What -> bytes. An engine has weights and kv_cache; a rank, the fields of `Footprint`."""
    together: float
    """At its peak."""
    host: float = 0.0
    """Of a rank on a GPU: bytes in the machine's memory, for what is offloaded."""
    tokens: dict[str, int] = field(default_factory=dict)
    """row: of the longest that a rank trains on · kv_cache: that fit into an engine's."""


def processes(config: Config, stages: Sequence[str], gpu_bytes: int | None) -> dict[str, list[Process]]:
    """Stage -> what is up in it: the trainer's ranks, and each pool's first replicas. `gpu_bytes`: of the smallest GPU,
    where that is known."""
    training = {stage: (name, model) for stage, name, model in gpus.trained(config, stages)}
    found: dict[str, list[Process]] = {}
    for stage, parts in gpus.reserved(config, stages).items():
        ranks = [_ranks(config, stage, *training[stage])] if stage in training else []
        engines = [_engine(config, one.field, one.model, gpu_bytes) for one in parts if one.model is not None]
        found[stage] = [process for process in (*ranks, *engines) if process is not None]
    return found


def _ranks(config: Config, stage: str, name: str, model: ModelConfig) -> Process | None:
    shape = Shape.of(room.settings_of(config, model)) if model.endpoint is None else None
    trainer = config.trainer
    if shape is None or (trainer.lora is not None and shape.adapted(trainer.lora) is None):
        return None
    row = max(trainer.micro_batch_tokens, room.longest(config, name, model))
    need = footprint(shape, settings(config, stage, row))
    parts = {key: value for key, value in vars(need).items() if key != "host"}
    where = "GPU" if trainer.use_gpu else "memory"
    return Process(f"training {name}", trainer.workers, where, parts, need.peak, need.host, {"row": row})


def settings(config: Config, stage: str, row: int) -> Settings:
    """Of the trainer in a stage, for rows of so many tokens."""
    trainer = config.trainer
    objective = {"mgpo": config.mgpo.objective, "solve": config.solve.objective}.get(stage)
    frozen = objective is not None and bool(getattr(objective, "beta", 0) or getattr(objective, "kl", 0))
    return Settings(
        dtype=trainer.dtype,
        zero_stage=trainer.zero_stage,
        workers=trainer.fewest,
        tokens=row,
        checkpointing=trainer.activation_checkpointing,
        reference=trainer.reference if frozen and trainer.lora is None else None,
        offload=trainer.offload,
        use_gpu=trainer.use_gpu,
        lora=trainer.lora,
    )


def _engine(config: Config, name: str, model: ModelConfig, gpu_bytes: int | None) -> Process | None:
    weights = room.weights(config, model)
    if weights is None:
        return None
    engine, on_gpu = model.engine, bool(model.pool.num_gpus)
    each = weights / engine.tensor_parallel_size
    given = engine.gpu_memory_utilization * gpu_bytes if gpu_bytes is not None else None
    cache = engine.kv_cache_gb * 2**30 if not on_gpu else max(0.0, given - each) if given is not None else None
    parts = {"weights": each} | ({"kv_cache": cache} if cache is not None else {})
    shape = Shape.of(room.settings_of(config, model))
    fit = {} if cache is None or shape is None else {
        "kv_cache": int(cache * engine.tensor_parallel_size / shape.cache_a_token())
    }  # fmt: skip
    return Process(name, model.pool.at_first, "GPU" if on_gpu else "memory", parts, sum(parts.values()), tokens=fit)


# ---------------------------------------------------------------- the plan


def plan(config: Config, stages: Sequence[str], gpu_bytes: int | None, host_bytes: int | None) -> dict[str, Any]:
    """The keys are `keys.MEMORY_KEYS`."""
    up = processes(config, stages, gpu_bytes)
    return {
        "stages": {stage: [_in_gb(process) for process in parts] for stage, parts in up.items()},
        "memory_gb": {stage: round(_on_host(parts) / _GB, 3) for stage, parts in up.items()},
        "gpu_gb": None if gpu_bytes is None else round(gpu_bytes / _GB, 3),
        "free_gb": None if host_bytes is None else round(host_bytes / _GB, 3),
        "unknown": _unknown(config, stages, up),
        "refused": [c.found for c in checks(config, stages, gpu_bytes, host_bytes) if c.status == "fail"],
    }


def _unknown(config: Config, stages: Sequence[str], up: dict[str, list[Process]]) -> list[str]:
    served = {one.field for parts in gpus.reserved(config, stages).values() for one in parts if one.model is not None}
    trained = {f"training {name}" for _, name, _ in gpus.trained(config, stages)}
    return sorted((served | trained) - {process.name for parts in up.values() for process in parts})


def _in_gb(process: Process) -> dict[str, Any]:
    return {
        "process": process.name,
        "count": process.count,
        "where": process.where,
        "gb": {key: round(value / _GB, 3) for key, value in process.parts.items()},
        "peak_gb": round(process.together / _GB, 3),
        "host_gb": round(process.host / _GB, 3),
        "tokens": process.tokens,
    }


def _on_host(parts: Sequence[Process]) -> float:
    """Bytes of the machine's memory that the processes of a stage take together."""
    return sum(p.count * (p.host + (p.together if p.where == "memory" else 0)) for p in parts)


def render(found: dict[str, Any]) -> str:
    lines = ["of one process. A rank's peak is what it holds, with activations, buffers and the larger of layer and"]
    lines.append("logits, or with the optimizer's update. Python, its libraries and Ray come on top")
    for stage, rows in found["stages"].items():
        lines += ["", f"{stage}: {found['memory_gb'][stage]:g} GB of the machine's memory"]
        for row in rows:
            parts = [f"{key.replace('_', ' ')} {gb:g}" for key, gb in row["gb"].items() if gb]
            parts += [f"in the machine's memory {row['host_gb']:g}"] if row["host_gb"] else []
            parts += [f"rows of {row['tokens']['row']} tokens"] if "row" in row["tokens"] else []
            parts += [f"{row['tokens']['kv_cache']} tokens of KV cache"] if "kv_cache" in row["tokens"] else []
            head = f"{row['count']} x {row['process']}, {row['where']}"
            lines.append(columns([("  ", head, f"{row['peak_gb']:g} GB", ": " + ", ".join(parts))]))
    lines += [f"not known, left out: {name}" for name in found["unknown"]]
    lines += [f"would be refused: {line}" for line in found["refused"]]
    return "\n".join(lines)


# ---------------------------------------------------------------- whether there is room


def checks(config: Config, stages: Sequence[str], gpu_bytes: int | None, host_bytes: int | None) -> Iterator[Check]:
    """Against the smallest GPU and this machine's memory (None: not known, as those of a cluster)."""
    up = processes(config, stages, gpu_bytes)
    trained = sorted((p for parts in up.values() for p in parts if "row" in p.tokens), key=lambda p: p.together)
    ranks = {process.name: process for process in trained}  # the stage in which it takes most
    for rank in ranks.values():
        where = "GPU" if rank.where == "GPU" else "process"
        held = Footprint(**rank.parts).held
        much = f"{rank.together / _GB:.1f} GB on each of {rank.count} {where}s, {held / _GB:.1f} of it all the time"
        found = f"{rank.name} takes {much}"
        if rank.where == "GPU" and gpu_bytes is not None and rank.together > gpu_bytes:
            here = f"a GPU here has {gpu_bytes / _GB:.0f} GB"
            fewer = "" if config.trainer.lora else "trainer.lora, "
            todo = f"{here}: more trainer.workers, trainer.zero_stage 3, {fewer}trainer.offload, or a smaller model"
            yield Check("memory", "fail", found, todo, {"gb": _in_gb(rank)["gb"]})
        else:
            yield Check("memory", "ok", found, detail={"gb": _in_gb(rank)["gb"]})
    if gpu_bytes is not None:
        yield from _engines(config, stages, gpu_bytes)
    on_host = {stage: _on_host(parts) for stage, parts in up.items()}
    largest = max(on_host, key=lambda stage: on_host[stage], default=None)
    if largest is not None and host_bytes is not None and on_host[largest] > host_bytes:
        found = (
            f"{largest} takes {on_host[largest] / _GB:.1f} GB of this machine's memory: weights, KV cache, the trainer"
        )
        todo = f"{host_bytes / _GB:.1f} GB are free: a smaller model, engine.kv_cache_gb, or fewer replicas"
        yield Check("memory", "fail", found, todo)


def _engines(config: Config, stages: Sequence[str], gpu_bytes: int) -> Iterator[Check]:
    """Models whose weights alone are more than the GPUs of a replica have for them."""
    served = {one.field: one.model for parts in gpus.reserved(config, stages).values() for one in parts}
    for name, model in served.items():
        size = room.weights(config, model) if model is not None and model.pool.num_gpus else None
        if model is None or size is None:
            continue
        tp, share = model.engine.tensor_parallel_size, model.engine.gpu_memory_utilization
        if size / tp > share * gpu_bytes:
            found = f"{name}: {size / tp / _GB:.1f} GB of weights on each GPU, for which it has {share:.0%}"
            todo = f"a GPU here has {gpu_bytes / _GB:.0f} GB: a larger {name}.engine.tensor_parallel_size"
            yield Check("memory", "fail", found, todo)
