"""What stages that train have in common: Ray Train and DeepSpeed, and the learning rate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.cluster import CustomResources, LabelSelector
from pipeline.config.section import Section
from pipeline.config.types import Fraction, Positive, Seconds


class LoRAConfig(Section):
    """An adapter of low rank (LoRA, by peft) beside the model's weights, which stay as they are. It alone is trained;
    engines, checkpoints and later stages see one model, the adapter added to its weights."""

    rank: Positive = 16
    """Of the two matrices that an adapted layer gets."""
    alpha: Positive = 32
    """Their product counts alpha / rank times."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of an adapter's input, in training. Above 0 the policy that is trained is not quite the one that sampled."""
    targets: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Linear layers that get an adapter, by the last part of their names ([q_proj, v_proj]); None: all but the output
    layer. A mixture of experts needs them named: its experts get none."""


class TrainerConfig(Section):
    """Ray Train and DeepSpeed."""

    workers: Positive = 1
    """Processes that train, one a GPU; with `min_workers`, at most."""
    min_workers: Positive | None = None
    """Fewest of them that training begins with, and goes on with where nodes are taken away: a step stays the same,
    each worker has a larger share of it. Then `resources` must name what only the trainer uses, for Ray counts what
    nodes have, whoever uses it. null: `workers`, always."""
    resize_s: Seconds = 300
    """How often, with `min_workers`, it is looked for room for more of them. To take it, training begins again at its
    last checkpoint."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """What workers share out: 0 nothing, 1 optimizer states, 2 gradients too, 3 parameters too."""
    use_gpu: bool = False
    """Train on GPUs."""
    num_cpus: float = Field(default=1, gt=0)
    """Logical CPUs a worker reserves."""
    resources: CustomResources = Field(default={})
    """Custom Ray resources a worker reserves, to keep the trainer on a node type (for example {"trainer": 1})."""
    labels: LabelSelector = Field(default={})
    """Labels of the nodes that workers may be on (for example {"market": "!spot"})."""
    threads: Positive = 2
    """OpenMP threads a CPU worker uses, shared out when there are several."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of the model. Master weights are float32 either way; the sum over micro-batches is with zero_stage 2 or 3."""
    activation_checkpointing: bool | None = None
    """Compute activations again in the backward pass instead of keeping them: less memory for a third more time. null:
    of models above a billion parameters."""
    offload: Literal["optimizer", "parameters"] | None = None
    """What DeepSpeed keeps in the machine's memory, not the GPU's: the optimizer's states (zero_stage 1 to 3), or the
    parameters as well (zero_stage 3). Less GPU memory for slower steps."""
    reference: Literal["whole", "sharded", "offloaded"] = "whole"
    """Where the frozen reference of MGPO and GRPO lies: on each GPU, shared out by all, or in the machine's memory
    between uses."""
    lora: LoRAConfig | None = None
    """Train an adapter ({rank: 16}; {} for its defaults) in place of all weights; null: all weights. The memory of
    gradients and optimizer becomes that of the adapter, and the reference the model without it; the learning rate
    is commonly ten times that of all weights."""
    micro_batch_tokens: Positive = 20480
    """Tokens that one forward pass takes."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    """Of AdamW."""
    grad_clip: float = Field(default=1.0, gt=0)
    """Norm that the gradient is cut to."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Of AdamW."""
    publish_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of the weights that the engines are sent."""
    keep_checkpoints: Positive = 2
    """Newest checkpoints kept of each stage; of solve all, where `solve.dev` chooses among them."""
    max_failures: int = Field(default=1, ge=0)
    """Restarts of the worker group from the last checkpoint."""
    start_timeout_s: Seconds = 900
    """How long the workers' resources may take to come."""
    step_timeout_s: Seconds = 3600
    """No step for this long ends the run with the stage's name."""

    def contradictions(self) -> Iterator[str]:
        least = {None: 0, "optimizer": 1, "parameters": 3}[self.offload]
        if self.zero_stage < least:
            yield f"zero_stage ({self.zero_stage}): offload {self.offload} is DeepSpeed's from {least} on"
        if not self.use_gpu and self.offload is not None:
            yield f"offload ({self.offload}): without use_gpu all lies in the machine's memory; expected null"
        if not self.use_gpu and self.reference == "offloaded":
            yield "reference (offloaded): without use_gpu all lies in the machine's memory; expected whole or sharded"
        if self.lora is not None and self.reference != "whole":
            yield (
                f"reference ({self.reference}): with lora it is the model without its adapter, and there is no second "
                "copy to place; expected whole"
            )
        if self.fewest > self.workers:
            yield f"min_workers ({self.fewest}) must be at most workers ({self.workers})"
        if self.elastic and not any(self.resources.values()):
            yield (
                f"min_workers ({self.fewest}): Ray gives an elastic trainer all that nodes have, whoever uses it; "
                "expected resources that only the trainer uses, such as {trainer: 1}"
            )
        if self.elastic and self.lora is not None and self.lora.dropout:
            yield (
                f"lora.dropout ({self.lora.dropout:g}): each worker draws its own, so a step would depend on how many "
                "there are; expected 0, or min_workers null"
            )

    @property
    def fewest(self) -> int:
        """Workers without which nothing is trained."""
        return self.workers if self.min_workers is None else self.min_workers

    @property
    def elastic(self) -> bool:
        return self.fewest < self.workers


class Scheduled(Section):
    """The learning rate of a stage that trains."""

    lr: float = Field(default=1e-6, gt=0)
    """Learning rate, after the warm-up."""
    warmup_steps: int = Field(default=5, ge=0)
    """Steps in which the learning rate rises to lr."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What becomes of it from the first step to the last: it stays, or falls on a line or a half cosine."""
    lr_end: Fraction = 0.0
    """Share of lr that it falls to."""


class Supervised(Scheduled):
    """Training on texts that are all there before it begins."""

    epochs: Positive = 3
    """Passes over them."""
    batch: Positive = 32
    """Texts a step."""
    lr: float = Field(default=1e-5, gt=0)
    """Learning rate, after the warm-up."""
    warmup_steps: int = Field(default=10, ge=0)
    """Steps in which the learning rate rises to lr."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """What becomes of it from the first step to the last: it stays, or falls on a line or a half cosine."""
    lr_end: Fraction = 0.1
    """Share of lr that it falls to."""
    checkpoint_every: Positive = 50
    """Steps between checkpoints."""


class Updates(Section):
    """What is made of the rollouts of a step."""

    mini_batches: Positive = 1
    """Optimizer updates that a pass over the rollouts of a step is cut into, whole groups each. From the second on the
    policy is no longer the one that sampled: the ratio moves, and gate or clip act."""
    passes: Positive = 1
    """Passes over the rollouts of a step."""
