"""MGPO, multi-granularity policy optimisation: the seven steps of the method, numbered as there.

    1  A_E(i)   = (r_T(i) - mean) / std over the trajectories of the group
    2  A_S(i,t) = (r_proc - mean) / std over the actions of the group in the same cognitive stage
    3  A(i,t)   = A_E(i) + omega * A_S(i,t)
    4  R(i,t)   = beta * log(pi_theta(a|o) / pi_ref(a|o))
    5  w(i,t)   = (A - mean A) - (R - mean R)             means over the actions of the group (or of the batch)
    6  w'(i,t,j) = sech^2(tau/2 * (r - 1)) * w            tau_pos where w > 0, tau_neg where w < 0
    7  L = -1/N sum w' log pi_theta                       w' carries no gradient

Degenerate groups (one member, equal rewards, a stage that occurs once) have advantage 0 by definition.
r = pi_theta / pi_engine: the sampler is the old policy, so r is 1 on-policy and the gate closes on stale tokens.
The truncated importance weight min(r, cap), an option of ours, multiplies w'.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.config import MGPOFields
from pipeline.records import COGNITIVE_STAGES
from trainers.objectives.base import (
    AllReduce,
    Means,
    Objective,
    StepTokens,
    Totals,
    importance,
    mean_of,
    ratio,
    square_of,
)
from trainers.objectives.segments import centre, degenerate, segment_mean, segment_sum, standardise


class MGPO(Objective):
    whole_step = True

    def __init__(self, config: MGPOFields):
        self.config = config
        self.needs_reference = config.beta > 0

    def _weights(
        self, step: StepTokens, logp_K: Tensor, ref_K: Tensor, totals: Totals, all_reduce: AllReduce
    ) -> Tensor:
        advantage_A = advantages(self.config, step)
        reward_A = implicit_reward(self.config, step, logp_K, ref_K)
        weight_A = zero_sum(self.config, step, advantage_A, reward_A, all_reduce)
        weight_K = weight_A[step.action_K]
        gated_K = gate(self.config, gate_ratio(self.config, step, logp_K), weight_K) * weight_K
        correction_K = importance(ratio(logp_K, step.engine_K), self.config.importance_cap)
        return gated_K * correction_K / totals.tokens

    def diagnostics(self, step: StepTokens, logp_N: Tensor, weight_N: Tensor) -> Means:
        advantage_A = advantages(self.config, step)
        stage_advantage_A = stage_advantages(step)
        gate_N = gate(self.config, gate_ratio(self.config, step, logp_N), weight_N)
        means: Means = {
            "gate": mean_of(gate_N),
            "gate_saturated": mean_of(gate_N < 0.5),
            "degenerate_groups": mean_of(degenerate(step.reward_S, step.group_S, step.groups)),
            "stage_advantage_zero": mean_of(stage_advantage_A == 0),
        }
        for index, stage in enumerate(COGNITIVE_STAGES):
            here_A = step.stage_A == index
            means[f"advantage/{stage}"] = mean_of(advantage_A[here_A])
            means[f"advantage/{stage}_rms"] = square_of(advantage_A[here_A])
            means[f"stage_advantage/{stage}_rms"] = square_of(stage_advantage_A[here_A])
            means[f"process_reward/{stage}"] = mean_of(step.process_A[here_A])
        return means


def trajectory_advantages(step: StepTokens) -> Tensor:
    """Step 1, float_S."""
    return standardise(step.reward_S, step.group_S, step.groups)


def stage_advantages(step: StepTokens) -> Tensor:
    """Step 2, float_A."""
    cell_A = step.group_A * len(COGNITIVE_STAGES) + step.stage_A
    return standardise(step.process_A, cell_A, step.groups * len(COGNITIVE_STAGES))


def advantages(config: MGPOFields, step: StepTokens) -> Tensor:
    """Step 3, float_A."""
    return trajectory_advantages(step)[step.seq_A] + config.omega * stage_advantages(step)


def implicit_reward(config: MGPOFields, step: StepTokens, logp_K: Tensor, ref_K: Tensor) -> Tensor:
    """Step 4, float_A: the log ratio of an action is the sum over its tokens, or their mean."""
    pool = segment_sum if config.implicit == "sum" else segment_mean
    return config.beta * pool(logp_K - ref_K, step.action_K, step.seq_A.numel())


def zero_sum(
    config: MGPOFields, step: StepTokens, advantage_A: Tensor, reward_A: Tensor, all_reduce: AllReduce
) -> Tensor:
    """Step 5, float_A: sums to zero over the actions of each group (or of the whole batch, over all ranks)."""
    difference_A = advantage_A - reward_A
    if config.scope == "group":
        return centre(difference_A, step.group_A, step.groups)
    total, count = all_reduce(torch.stack([difference_A.sum(), difference_A.new_tensor(difference_A.numel())]))
    return difference_A - total / count


def gate_ratio(config: MGPOFields, step: StepTokens, logp_K: Tensor) -> Tensor:
    """r of step 6, float_K: per token, or the geometric mean over the tokens of the action."""
    if config.ratio == "token":
        return ratio(logp_K, step.engine_K)
    log_ratio_A = segment_mean(logp_K - step.engine_K, step.action_K, step.seq_A.numel())
    return ratio(log_ratio_A, torch.zeros_like(log_ratio_A))[step.action_K]


def gate(config: MGPOFields, ratio_K: Tensor, weight_K: Tensor) -> Tensor:
    """Step 6's factor, float_K in [0, 1]: 1 on-policy, falling on both sides, faster where w < 0."""
    tau_K = torch.where(weight_K < 0, config.tau_neg, config.tau_pos)
    return torch.cosh(tau_K / 2 * (ratio_K - 1)) ** -2
