"""The DeepSpeed configuration of a run."""

from __future__ import annotations

from typing import Any

from trainers.spec import TrainSpec

BUCKET = 50_000_000
"""Largest communication buffer, in elements; DeepSpeed allocates it whole, so a small model gets a small one."""


def build(spec: TrainSpec, parameters: int, trained: int) -> dict[str, Any]:
    """Settings for `deepspeed.initialize`, of a model with so many parameters.

    A step has as many micro-batches as its trajectories fill, so the loop owns the accumulation boundary
    (managed_gradient_accumulation is off) and scales the loss itself; the batch sizes here are formalities.
    """
    bucket = max(1, min(BUCKET, trained))
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": spec.grad_clip,
        "bf16": {"enabled": spec.dtype == "bfloat16"},
        # Many micro-batches summed in bfloat16 lose what is small. Below stage 2 DeepSpeed offers nothing else (0), or
        # an optimizer of another kind (1).
        "data_types": {"grad_accum_dtype": "fp32" if spec.zero_stage >= 2 else None},
        "zero_optimization": {
            "stage": spec.zero_stage,
            "overlap_comm": False,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
            "stage3_prefetch_bucket_size": max(1, min(BUCKET, parameters)),
        }
        | _offloaded(spec),
        # The client's torch optimizer: DeepSpeed's own CPU Adam would compile an extension on the user's machine.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1_000_000_000,
    }


def frozen(spec: TrainSpec, parameters: int) -> dict[str, Any]:
    """Settings for a model that all ranks share and none trains."""
    return {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": spec.dtype == "bfloat16"},
        "zero_optimization": {"stage": 3, "stage3_prefetch_bucket_size": min(BUCKET, parameters)},
        "steps_per_print": 1_000_000_000,
    }


def _offloaded(spec: TrainSpec) -> dict[str, Any]:
    if spec.offload is None:
        return {}
    host = {"device": "cpu", "pin_memory": spec.use_gpu}
    return {"offload_optimizer": host} | ({"offload_param": host} if spec.offload == "parameters" else {})
