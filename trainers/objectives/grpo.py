"""GRPO with clipping, and the normalisations of dr-GRPO and DAPO.

    A_i = r_T(i) - mean of the group               (/ std of the group, unless dr-GRPO)
    L   = - aggregate of min(r A, clip(r, 1 - low, 1 + high) A) - kl * k3(pi_theta, pi_ref)

r = pi_theta / pi_engine per token: the sampler is the old policy. The surrogate's gradient is r A grad(log pi) where
the clip is not active and 0 where it is; that factor is the weight. The truncated importance correction caps r in
it, which bounds what a stale token with a negative advantage can do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.config import GRPOConfig
from trainers.objectives.base import AllReduce, Means, Objective, StepTokens, Totals, mean_of, ratio
from trainers.objectives.segments import centre, degenerate, standardise


class GRPO(Objective):
    whole_step = False

    def __init__(self, config: GRPOConfig):
        self.config = config
        self.needs_reference = config.kl > 0

    def _weights(
        self, step: StepTokens, logp_K: Tensor, ref_K: Tensor, totals: Totals, all_reduce: AllReduce
    ) -> Tensor:
        advantage_K = advantages(self.config, step)[step.seq_K]
        ratio_K = ratio(logp_K, step.engine_K)
        slope_K = ratio_K if self.config.importance_cap is None else ratio_K.clamp(max=self.config.importance_cap)
        weight_K = torch.where(clipped(self.config, ratio_K, advantage_K), 0.0, slope_K * advantage_K)
        if self.needs_reference:
            weight_K = weight_K + self.config.kl * (ratio(ref_K, logp_K) - 1)  # - d k3 / d log pi
        return weight_K * scale(self.config, step, totals)

    def diagnostics(self, step: StepTokens, logp_N: Tensor, weight_N: Tensor) -> Means:
        advantage_N = advantages(self.config, step)[step.seq_K]
        flat_G = degenerate(step.reward_S, step.group_S, step.groups)
        return {
            "clip_share": mean_of(clipped(self.config, ratio(logp_N, step.engine_K), advantage_N)),
            "degenerate_groups": mean_of(flat_G),
        }


def advantages(config: GRPOConfig, step: StepTokens) -> Tensor:
    """float_S."""
    normalise = standardise if config.scale_by_std else centre
    return normalise(step.reward_S, step.group_S, step.groups)


def clipped(config: GRPOConfig, ratio_K: Tensor, advantage_K: Tensor) -> Tensor:
    """bool_K: where the minimum is the clipped, constant branch."""
    high = (advantage_K > 0) & (ratio_K > 1 + config.clip_high)
    low = (advantage_K < 0) & (ratio_K < 1 - config.clip_low)
    return high | low


def scale(config: GRPOConfig, step: StepTokens, totals: Totals) -> Tensor:
    """float_K or scalar: what a token's surrogate is divided by, as a factor."""
    if config.aggregate == "sequence":
        return 1 / (step.length_S[step.seq_K] * totals.sequences)
    if config.aggregate == "token":
        return torch.tensor(1 / totals.tokens)
    return torch.tensor(1 / (totals.sequences * config.constant_length))
