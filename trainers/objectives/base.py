"""What every objective shares: the tokens of a step, and the shape of the answer.

An objective is a pure function from the tokens of a step to one weight a token; the loss is always

    L = - sum_n weight_n * log pi_theta(x_n | context_n)

with weights that carry no gradient, so that one training loop serves every algorithm. A surrogate such as GRPO's
min(r A, clip(r) A) is given as the weight that has the same gradient. Shape suffixes: N loss tokens of this rank,
K of them (one micro-batch, or all), A actions, S trajectories. Groups are never split across ranks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

MAX_LOG_RATIO = 20.0
"""Log ratios are clamped here before exp, so that one absurd token cannot make an infinity."""

Means = dict[str, tuple[Tensor, Tensor]]
"""Metric name -> (sum, count), so that ranks and micro-batches add up. Names ending in `_rms` hold squares."""

AllReduce = Callable[[Tensor], Tensor]
"""Sum of a small tensor over all ranks."""


@dataclass(frozen=True)
class StepTokens:
    """The loss tokens of one rank's share of a step, with the facts that advantages are made of."""

    engine_K: Tensor
    """float32: log-probability that the engine recorded when it sampled the token."""
    action_K: Tensor
    """int64: index of the token's action."""
    seq_A: Tensor
    """int64: trajectory of each action."""
    stage_A: Tensor
    """int64: cognitive stage of each action."""
    process_A: Tensor
    """float32: r_proc."""
    reward_S: Tensor
    """float32: r_T."""
    group_S: Tensor
    """int64: group of each trajectory, 0 .. groups - 1."""
    length_S: Tensor
    """float32: loss tokens of each trajectory."""
    groups: int

    @property
    def seq_K(self) -> Tensor:
        return self.seq_A[self.action_K]

    @property
    def group_A(self) -> Tensor:
        return self.group_S[self.seq_A]

    def select(self, index_K: Tensor) -> StepTokens:
        """The same step, restricted to some of its tokens."""
        return replace(self, engine_K=self.engine_K[index_K], action_K=self.action_K[index_K])

    def to(self, device: torch.device) -> StepTokens:
        moved: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True)
class Totals:
    """Sizes of the step over all ranks."""

    tokens: float
    sequences: float


class Objective(ABC):
    """One algorithm. `weights` and `diagnostics` are pure; they see no model and no communication but `all_reduce`."""

    of_engine = True
    """The tokens were sampled by an engine, which recorded their log-probabilities; a teacher's text has none."""
    needs_reference: bool
    """Log-probabilities of the frozen pi_ref are wanted."""
    whole_step: bool
    """The weight of a token depends on the policy's log-probabilities of other tokens of the step, so a forward pass
    over the whole step must come before the first backward pass."""

    @torch.no_grad()
    def weights(self, step: StepTokens, logp_K: Tensor, ref_K: Tensor, totals: Totals, all_reduce: AllReduce) -> Tensor:
        """Weight of each token, a constant to the loss whatever `logp_K` carries; `ref_K` is zeros unless
        `needs_reference`."""
        return self._weights(step, logp_K, ref_K, totals, all_reduce)

    @abstractmethod
    def _weights(
        self, step: StepTokens, logp_K: Tensor, ref_K: Tensor, totals: Totals, all_reduce: AllReduce
    ) -> Tensor:
        """As `weights`, which stops the gradient."""

    @abstractmethod
    def diagnostics(self, step: StepTokens, logp_N: Tensor, weight_N: Tensor) -> Means:
        """This algorithm's own figures; the keys do not depend on the data."""


def ratio(logp: Tensor, other: Tensor) -> Tensor:
    """pi / pi_other."""
    return (logp - other).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def importance(ratio_K: Tensor, cap: float | None) -> Tensor:
    """Truncated importance weight min(pi_theta / pi_engine, cap); 1 where no cap is set."""
    return torch.ones_like(ratio_K) if cap is None else ratio_K.clamp(max=cap)


def mean_of(values: Tensor) -> tuple[Tensor, Tensor]:
    """An entry of `Means`: the mean of `values` over all ranks (bool counts as a share)."""
    return values.double().sum(), torch.tensor(float(values.numel()), dtype=torch.float64, device=values.device)


def square_of(values: Tensor) -> tuple[Tensor, Tensor]:
    """An entry of `Means` for a name ending in `_rms`."""
    return mean_of(values.double() ** 2)
