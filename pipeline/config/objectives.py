"""The objectives that a policy is trained with.

An objective is one file in `trainers/objectives/` and one entry in `OBJECTIVES`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.config.section import Implemented, Registry
from pipeline.config.types import Positive


class ObjectiveConfig(Implemented):
    name: str


class MGPOFields(ObjectiveConfig):
    """Multi-granularity policy optimisation (PAPER, stage 3)."""

    omega: float = Field(default=0.5, ge=0)
    """Weight of the stage advantage A_S."""
    beta: float = Field(default=0.1, ge=0)
    """Scale of the implicit reward."""
    tau_pos: float = Field(default=1.0, gt=0)
    """Temperature of the gate for trajectories above the mean."""
    tau_neg: float = Field(default=1.05, gt=0)
    """Temperature of the gate for trajectories below the mean; above tau_pos."""
    ratio: Literal["token", "action"] = "token"
    """r in the gate: per token, or the geometric mean over an action (open in the paper)."""
    implicit: Literal["sum", "mean"] = "sum"
    """R_theta over the tokens of an action (open in the paper). The sum is the log ratio of the action
    itself; with the mean the pull to the reference is weaker by the action's length."""
    baseline: Literal["group", "stage"] = "group"
    """Whom A_E compares an action's trajectory with. group: all of its group, as in the paper · stage: those that
    reached the action's stage too. With the first, a stage that only failing trajectories reach is discouraged as
    such."""
    lone: Literal["zero", "group"] = "zero"
    """What an action gets that nothing can be compared with, because no other of its group is of its stage. zero: an
    A_S of 0, and with baseline=stage an A_E of 0 · group: what it gets among all of its group."""
    scope: Literal["group", "batch"] = "group"
    """Where the means of the zero-sum weight are taken (open in the paper)."""
    zero_sum: Literal["actions", "trajectories"] = "actions"
    """What those means count: each action once, or each trajectory, by the mean of its actions: then long ones count
    no more than short ones (open in the paper)."""
    importance_cap: float | None = Field(default=2.0, gt=0)
    """Each token is weighted by min(pi_trainer / pi_engine, cap); None leaves the weight out."""

    @model_validator(mode="after")
    def _asymmetric(self) -> MGPOFields:
        if self.tau_neg <= self.tau_pos:
            raise ValueError(f"tau_neg ({self.tau_neg}) must exceed tau_pos ({self.tau_pos}): the gate is asymmetric")
        return self


class MGPOConfig(MGPOFields):
    implementation: ClassVar[str] = "trainers.objectives.mgpo:MGPO"
    name: Literal["mgpo"] = "mgpo"


class MGPONoStageConfig(MGPOFields):
    """MGPO without the stage advantage, for ablations."""

    implementation: ClassVar[str] = "trainers.objectives.mgpo_no_stage:MGPONoStage"
    name: Literal["mgpo_no_stage"] = "mgpo_no_stage"


class GRPOConfig(ObjectiveConfig):
    """Group-relative policy optimisation with clipping."""

    implementation: ClassVar[str] = "trainers.objectives.grpo:GRPO"
    name: Literal["grpo"] = "grpo"
    clip_low: float = Field(default=0.2, gt=0)
    """The ratio is clipped below 1 minus this."""
    clip_high: float = Field(default=0.2, gt=0)
    """Above clip_low: DAPO's clip-higher."""
    kl: float = Field(default=0.0, ge=0)
    """Weight of the divergence from the model that the stage began with."""
    scale_by_std: bool = True
    """Off: dr-GRPO's advantages."""
    aggregate: Literal["sequence", "token", "constant"] = "token"
    """sequence: mean of per-sequence means (GRPO) · token: mean over all tokens (DAPO) · constant: dr-GRPO."""
    constant_length: Positive = 8192
    """With aggregate=constant: the loss is divided by trajectories times this many tokens."""
    importance_cap: float | None = Field(default=2.0, gt=0)
    """Upper bound of the ratio that multiplies a token's gradient; None leaves it unbounded."""


class SFTConfig(ObjectiveConfig):
    """Negative log-likelihood of the agent's own tokens."""

    implementation: ClassVar[str] = "trainers.objectives.sft:SFT"
    name: Literal["sft"] = "sft"


OBJECTIVES: Registry[ObjectiveConfig] = Registry("name", [MGPOConfig, MGPONoStageConfig, GRPOConfig, SFTConfig])
