"""What a training run is made of, and what it leaves. Imports neither Ray nor torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline.config import OBJECTIVES, LoRAConfig, ObjectiveConfig

CHUNK = 1 << 26
"""Logits alive at once (256 MiB in float32)."""
LARGE = 1_000_000_000
"""Parameters above which activations are computed again, unless the config says otherwise."""


class TrainSpec(BaseModel):
    """One run of the train loop. The same spec and storage again resumes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_model: Path
    """Hugging Face directory: the starting point, and pi_ref where the objective needs one."""
    objective: Annotated[ObjectiveConfig, OBJECTIVES]
    lr: float
    warmup_steps: int = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    lr_end: float = 0.0
    """Share of lr that the rate falls to, unless it is constant."""
    steps: int | None = None
    """Length of the run, by whose end it has fallen; None where that is open, and the rate does not fall."""
    mini_batches: int = 1
    """Optimizer updates that a pass over a step is cut into."""
    passes: int = 1
    """Passes over the rollouts of a step."""
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    grad_clip: float = Field(default=1.0, gt=0)
    zero_stage: Literal[0, 1, 2, 3] = 0
    workers: int = 1
    min_workers: int | None = None
    """Fewest workers that it goes on with; None: `workers`."""
    resize_s: float = 300.0
    """How often it is looked for room for more of them."""
    use_gpu: bool = False
    gpus_per_worker: float = 1.0
    """Where it uses them. Less than one leaves the rest of the same GPU to a replica."""
    cpus_per_worker: float = 1.0
    resources: dict[str, float] = {}
    """Custom resources that each worker reserves beside."""
    labels: dict[str, str] = {}
    """Label selector of the nodes that workers may be on."""
    threads: int = 1
    """OpenMP threads of each worker."""
    micro_batch_tokens: int = 4096
    activation_checkpointing: bool | None = None
    """Recompute activations in the backward pass; None: of a model above `LARGE`."""
    offload: Literal["optimizer", "parameters"] | None = None
    """What DeepSpeed keeps in the machine's memory."""
    reference: Literal["whole", "sharded", "offloaded"] = "whole"
    """Where pi_ref lies; see `trainers.reference`."""
    lora: LoRAConfig | None = None
    """Train this adapter; None: all weights. pi_ref is then the policy without it."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    storage: Path
    """Folder of the runs; on several machines it must be shared."""
    name: str
    """Folder of this run in `storage`; its checkpoints are `step-NNNNNN` in it."""
    checkpoint_every: int = 50
    keep_checkpoints: int | None = 2
    """Newest; None: all."""
    publish_every: int | None = 1
    """Weights go out after every so many steps; None: never."""
    publish_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    transport: str = "object_store"
    """How weights reach the replicas. Other than object_store they are pushed, one of `trainers.push.INIT`, and
    published as well, for replicas that join."""
    max_failures: int = 1
    """Restarts of the workers from the last checkpoint."""
    step_timeout_s: float = 600.0
    """How long a rank waits for its share of a step, for a weight chunk to be taken, or for the other ranks."""
    start_timeout_s: float = 300.0
    """How long the workers' resources may take to come."""
    seed: int = 0

    @property
    def fewest(self) -> int:
        """Workers without which nothing is trained."""
        return self.workers if self.min_workers is None else self.min_workers

    @property
    def each(self) -> dict[str, float]:
        """What a worker reserves."""
        return {
            "CPU": self.cpus_per_worker,
            **({"GPU": self.gpus_per_worker} if self.use_gpu else {}),
            **self.resources,
        }

    @field_validator("base_model", "storage")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.absolute()  # workers have another working directory


class TrainSummary(BaseModel):
    """The end of a run that went well."""

    checkpoint: Path
    """Hugging Face directory of the last step."""
    step: int
    metrics: dict[str, Any]
    """Of the last step trained in this call; empty where all was done before."""
