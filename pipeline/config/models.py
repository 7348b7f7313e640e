"""Models, the engines that serve them, and how they are sampled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, model_validator

from pipeline.config.cluster import PoolConfig
from pipeline.config.endpoints import EndpointConfig
from pipeline.config.section import Section
from pipeline.config.types import Positive, Seconds

_DECIDED = {
    "model": "expected the model's path",
    "kv_cache_memory_bytes": "expected kv_cache_gb, or gpu_memory_utilization",
    "weight_transfer_config": "expected weight_transport",
    **dict.fromkeys(
        ("served_model_name", "skip_tokenizer_init", "generation_config", "seed", "disable_log_stats"),
        "expected none: the pool that serves the model decides it",
    ),
}
"""Arguments of vLLM's that the project sets itself -> what a user says instead."""


class EngineConfig(Section):
    """A vLLM engine. CPU and GPU share every field."""

    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Of weights and activations."""
    max_model_len: Positive | None = None
    """Tokens of prompt and answer together; None: the model's own context length."""
    max_num_seqs: Positive = 256
    """Sequences that are generated at once."""
    kv_cache_gb: float = Field(default=4, gt=0)
    """On a CPU: memory for the KV cache. On a GPU `gpu_memory_utilization` decides."""
    gpu_memory_utilization: float = Field(default=0.85, gt=0, le=1)
    """On a GPU: share of its memory for weights and KV cache."""
    tensor_parallel_size: Positive = 1
    """GPUs that share one model."""
    threads: Positive = 1
    """OpenMP threads of a CPU engine. One a busy engine is fastest on two cores."""
    enforce_eager: bool | None = None
    """Run the model without compiling it and without CUDA graphs; None: on a CPU only."""
    weight_transport: Literal["object_store", "ipc", "nccl", "sharded_rdt"] = "object_store"
    """How a model in training gets its weights. ipc: within one GPU that trainer and replica share; nccl: between GPUs;
    sharded_rdt: between GPUs, each worker its part only."""
    start_timeout_s: Seconds = 900
    """How long the engine may take to load its model."""
    arguments: dict[str, Any] = Field(default={})
    """Whatever else vLLM's engine takes, by the names of `vllm serve --help` with underscores, checked by vLLM itself:
    {max_num_batched_tokens: 16384, kv_cache_dtype: fp8, enable_prefix_caching: false}."""

    def contradictions(self) -> Iterator[str]:
        for name in self.arguments:
            if name in EngineConfig.model_fields:
                yield f"arguments.{name}: expected the field {name} beside `arguments`"
            elif name in _DECIDED:
                yield f"arguments.{name}: {_DECIDED[name]}"


class SamplingConfig(Section):
    temperature: float = Field(default=1.0, ge=0)
    """Objectives know the model's own probabilities, before temperature and top_p: at another temperature than 1 a
    stage trains on samples of another policy than the one it corrects for."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Share of the probability that tokens are sampled from; 1: all of it."""
    max_tokens: Positive = 8192
    """Of an answer."""


class ModelConfig(Section):
    """A model, its engine, and the pool of replicas that serve it."""

    path: str
    """A Hugging Face model: a directory, a name on the Hub (owner/name or owner/name@revision; on a cluster, HF_HOME is
    then a folder that all nodes share), or a name that the domain bundles (mini: `mini:proposer`, `mini:solver`). With
    `endpoint`, what the model is called in the run's files."""
    endpoint: EndpointConfig | None = None
    """Ask this endpoint instead of an engine of the run's own: {base_url: …, model: …}. Not for what is trained."""
    engine: EngineConfig = EngineConfig()
    pool: PoolConfig = PoolConfig(max_ongoing=128)

    def contradictions(self) -> Iterator[str]:
        shared, gpus = self.engine.tensor_parallel_size, self.pool.num_gpus
        if shared > 1 and gpus and gpus != shared and self.engine.weight_transport in ("object_store", "nccl"):
            yield (
                f"engine.tensor_parallel_size ({shared}): an engine sees the GPUs that its replica reserves, "
                f"pool.num_gpus ({gpus:g}); expected as many"
            )

    @model_validator(mode="before")
    @classmethod
    def _called_as_the_endpoint_calls_it(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "path" in given:
            return given
        match given.get("endpoint"):
            case EndpointConfig(model=name):
                return given | {"path": name}
            case dict() as endpoint:  # without a name, the endpoint's own check says so
                return given | {"path": str(endpoint.get("model", ""))}
        return given
