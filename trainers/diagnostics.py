"""Figures every algorithm reports, and the way ranks' figures become one set."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trainers.objectives.base import MAX_LOG_RATIO, Means, StepTokens, mean_of, square_of


def common(
    step: StepTokens,
    logp_N: Tensor,
    ref_N: Tensor | None,
    weight_N: Tensor,
    entropy_N: Tensor,
    tokens: float,
    of_engine: bool,
) -> Means:
    """`engine_*`, where the tokens are of an engine, compare the trainer's log-probabilities with those recorded when
    they were sampled: the divergence of the two implementations, plus the policy's own movement where rollouts are
    stale."""
    means: Means = {
        "reward": mean_of(step.reward_S),
        "reward_rms": square_of(step.reward_S),
        "response_tokens": mean_of(step.length_S),
        "nll": mean_of(-logp_N),
        "entropy": mean_of(entropy_N),
        "weight_rms": square_of(weight_N * tokens),
    }
    if of_engine:
        drift_N = (logp_N - step.engine_K).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        means["engine_kl"] = mean_of(drift_N.exp() - 1 - drift_N)
        means["engine_gap"] = mean_of(drift_N.abs())
    if ref_N is not None:
        back_N = (ref_N - logp_N).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        means["ref_kl"] = mean_of(back_N.exp() - 1 - back_N)
    return means


def reduce(means: Means, total: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """Means over all ranks. What no rank has a value of (a stage nobody entered) is left out."""
    sums = total(torch.stack([torch.stack(pair) for pair in means.values()]))
    values = {}
    for name, (value, count) in zip(means, sums.tolist(), strict=True):
        if count > 0:
            values[name] = (value / count) ** (0.5 if name.endswith("_rms") else 1)
    return values
