"""MGPO, multi-granularity policy optimisation: the seven steps of the method, numbered as there.

    1  A_E(i)   = (r_T(i) - mean) / std over the trajectories of the group
    2  A_S(i,t) = (r_proc - mean) / std over the actions of the group in the same cognitive stage
    3  A(i,t)   = A_E(i) + omega * A_S(i,t)
    4  R(i,t)   = beta * log(pi_theta(a|o) / pi_ref(a|o))
    5  w(i,t)   = (A - mean A) - (R - mean R)             means over the actions of the group (or of the batch)
    6  w'(i,t,j) = sech^2(tau/2 * (r - 1)) * w            tau_pos where w > 0, tau_neg where w < 0
    7  L = -1/N sum w' log pi_theta                       w' carries no gradient

Degenerate groups (one member, equal rewards, a stage that occurs once) have advantage 0 by definition. Options of ours:
`baseline: stage` takes step 1 over the trajectories that reached the action's stage; `lone: group` compares what is
alone in its stage with the whole group; `zero_sum: trajectories` takes step 5's means over trajectories.
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
from trainers.objectives.segments import degenerate, segment_mean, segment_sum, standardise

STAGES = len(COGNITIVE_STAGES)


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
        stage_advantage_A = stage_advantages(step, self.config.lone)
        gate_N = gate(self.config, gate_ratio(self.config, step, logp_N), weight_N)
        means: Means = {
            "gate": mean_of(gate_N),
            "gate_below_1": mean_of(gate_N < 0.99),
            "gate_saturated": mean_of(gate_N < 0.5),
            "degenerate_groups": mean_of(degenerate(step.reward_S, step.group_S, step.groups)),
            "stage_advantage_zero": mean_of(stage_advantage_A == 0),
        }
        stage_N = step.stage_A[step.action_K]
        for index, stage in enumerate(COGNITIVE_STAGES):
            here_A = step.stage_A == index
            means[f"discouraged/{stage}"] = mean_of(weight_N[stage_N == index] < 0)
            means[f"advantage/{stage}"] = mean_of(advantage_A[here_A])
            means[f"advantage/{stage}_rms"] = square_of(advantage_A[here_A])
            means[f"stage_advantage/{stage}_rms"] = square_of(stage_advantage_A[here_A])
            means[f"process_reward/{stage}"] = mean_of(step.process_A[here_A])
        return means


def trajectory_advantages(step: StepTokens) -> Tensor:
    """Step 1, float_S."""
    return standardise(step.reward_S, step.group_S, step.groups)


def reached_advantages(step: StepTokens, lone: str) -> Tensor:
    """Step 1 over the trajectories of the group that reached the action's stage, float_A."""
    visit_V, visit_A = torch.unique(step.seq_A * STAGES + step.stage_A, return_inverse=True)
    seq_V, stage_V = visit_V // STAGES, visit_V % STAGES
    cell_V = step.group_S[seq_V] * STAGES + stage_V
    score_V = standardise(step.reward_S[seq_V], cell_V, step.groups * STAGES)
    if lone == "group":
        score_V = torch.where(alone(cell_V, step.groups * STAGES), trajectory_advantages(step)[seq_V], score_V)
    return score_V[visit_A]


def stage_advantages(step: StepTokens, lone: str = "zero") -> Tensor:
    """Step 2, float_A."""
    cell_A = step.group_A * STAGES + step.stage_A
    score_A = standardise(step.process_A, cell_A, step.groups * STAGES)
    if lone == "group":
        among_all_A = standardise(step.process_A, step.group_A, step.groups)
        score_A = torch.where(alone(cell_A, step.groups * STAGES), among_all_A, score_A)
    return score_A


def alone(cell_X: Tensor, cells: int) -> Tensor:
    """bool_X: nothing else is in its cell."""
    return torch.bincount(cell_X, minlength=cells)[cell_X] == 1


def advantages(config: MGPOFields, step: StepTokens) -> Tensor:
    """Step 3, float_A."""
    if config.baseline == "group":
        outer_A = trajectory_advantages(step)[step.seq_A]
    else:
        outer_A = reached_advantages(step, config.lone)
    return outer_A + config.omega * stage_advantages(step, config.lone)


def implicit_reward(config: MGPOFields, step: StepTokens, logp_K: Tensor, ref_K: Tensor) -> Tensor:
    """Step 4, float_A: the log ratio of an action is the sum over its tokens, or their mean."""
    pool = segment_sum if config.implicit == "sum" else segment_mean
    return config.beta * pool(logp_K - ref_K, step.action_K, step.seq_A.numel())


def zero_sum(
    config: MGPOFields, step: StepTokens, advantage_A: Tensor, reward_A: Tensor, all_reduce: AllReduce
) -> Tensor:
    """Step 5, float_A: sums to zero over the actions of each group (or of the whole batch, over all ranks), each
    counting once, or as much as makes the actions of a trajectory one together."""
    difference_A = advantage_A - reward_A
    count_A = torch.ones_like(difference_A)
    if config.zero_sum == "trajectories":
        count_A = 1 / torch.bincount(step.seq_A, minlength=len(step.reward_S))[step.seq_A].to(count_A)
    if config.scope == "group":
        total_G = segment_sum(count_A * difference_A, step.group_A, step.groups)
        return difference_A - (total_G / segment_sum(count_A, step.group_A, step.groups))[step.group_A]
    total, count = all_reduce(torch.stack([(count_A * difference_A).sum(), count_A.sum()]))
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
