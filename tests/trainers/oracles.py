"""What the objectives are held against: MGPO as plain loops straight from the records, GRPO as trainers write its loss,
and slopes by differences. Nothing here is of the trainer but `weights_of`, which asks it.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

from pipeline.config import GRPOConfig, MGPOConfig, SFTConfig
from pipeline.records import Rollout
from tests.trainers.worlds import alone, totals_of
from trainers.batches import StepBatch
from trainers.objectives import make


def log_probabilities(batch: StepBatch, seed: int, spread: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    count = len(batch.loss_N)
    near = batch.tokens.engine_K + spread * torch.randn(count, generator=generator)
    return near, batch.tokens.engine_K + spread * torch.randn(count, generator=generator)


def weights_of(config: Any, batch: StepBatch, logp: torch.Tensor, ref: torch.Tensor) -> torch.Tensor:
    return make(config).weights(batch.tokens, logp, ref, totals_of(batch), alone)


def finite_differences(loss: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor) -> dict[int, float]:
    """Slope of `loss` in every seventh of its arguments, by central differences in double precision."""
    step, slopes = 1e-6, {}
    for n in range(0, len(at), 7):
        up, down = at.double().clone(), at.double().clone()
        up[n] += step
        down[n] -= step
        slopes[n] = float(loss(up) - loss(down)) / (2 * step)
    return slopes


def z_scores(values: dict[Any, float]) -> dict[Any, float]:
    """By the definition: nothing to prefer where there is one value, or all are the same."""
    if len(values) < 2 or max(values.values()) - min(values.values()) < 1e-6:
        return dict.fromkeys(values, 0.0)
    mean, std = statistics.fmean(values.values()), statistics.stdev(values.values())
    return {k: (v - mean) / std for k, v in values.items()}


def plain_advantages(
    rollouts: list[Rollout], config: MGPOConfig
) -> tuple[dict[tuple[int, int], float], dict[tuple[int, int], float]]:
    """A_E and A_S of each action: (trajectory, its number)."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, rollout in enumerate(rollouts):
        groups[rollout.group_id].append(i)
    outer: dict[tuple[int, int], float] = {}
    inner: dict[tuple[int, int], float] = {}
    for members in groups.values():
        actions = [(i, t) for i in members for t in range(len(rollouts[i].action_stage))]
        whole = z_scores({i: rollouts[i].terminal_reward for i in members})
        mixed = z_scores({(i, t): rollouts[i].process_rewards[t] for i, t in actions})
        for stage in range(4):
            here = [(i, t) for i, t in actions if rollouts[i].action_stage[t] == stage]
            reached = {i for i, _ in here}
            by_stage = z_scores({i: rollouts[i].terminal_reward for i in reached})
            if len(reached) == 1 and config.lone == "group":
                by_stage = {i: whole[i] for i in reached}
            outer |= {(i, t): whole[i] if config.baseline == "group" else by_stage[i] for i, t in here}
            if len(here) == 1 and config.lone == "group":
                inner[here[0]] = mixed[here[0]]
            else:
                inner |= z_scores({(i, t): rollouts[i].process_rewards[t] for i, t in here})
    return outer, inner


def plain_mean(values: dict[tuple[int, int], float], config: MGPOConfig) -> float:
    """Over actions, or over trajectories of the means of their actions."""
    if config.zero_sum == "actions":
        return statistics.fmean(values.values())
    of: dict[int, list[float]] = defaultdict(list)
    for (i, _), value in values.items():
        of[i].append(value)
    return statistics.fmean(statistics.fmean(own) for own in of.values())


def brute_force_mgpo(rollouts: list[Rollout], config: MGPOConfig, logp: list[float], ref: list[float]) -> list[float]:
    omega = config.omega if config.name == "mgpo" else 0.0
    token_of: dict[tuple[int, int], list[int]] = defaultdict(list)  # (trajectory, action) -> loss tokens
    engine: list[float] = []
    for i, rollout in enumerate(rollouts):
        for p, masked in enumerate(rollout.loss_mask):
            if masked:
                token_of[i, rollout.action_index[p]].append(len(engine))
                engine.append(rollout.logprobs[p])
    outer, inner = plain_advantages(rollouts, config)
    difference: dict[tuple[int, int], float] = {}
    for i, t in inner:
        logs = [logp[n] - ref[n] for n in token_of[i, t]]
        pooled = sum(logs) if config.implicit == "sum" else sum(logs) / len(logs)
        difference[i, t] = outer[i, t] + omega * inner[i, t] - config.beta * pooled
    result = [0.0] * len(engine)
    for i, t in difference:
        peers = (
            difference
            if config.scope == "batch"
            else {k: v for k, v in difference.items() if rollouts[k[0]].group_id == rollouts[i].group_id}
        )
        w = difference[i, t] - plain_mean(peers, config)
        logs = [logp[n] - engine[n] for n in token_of[i, t]]
        for n in token_of[i, t]:
            r = math.exp(logp[n] - engine[n])
            gate_r = r if config.ratio == "token" else math.exp(sum(logs) / len(logs))
            tau = config.tau_neg if w < 0 else config.tau_pos
            sech = 1 / math.cosh(tau / 2 * (gate_r - 1))
            truncated = 1.0 if config.importance_cap is None else min(r, config.importance_cap)
            result[n] = sech**2 * w * truncated / len(engine)
    return result


def plain_loss(rollouts: list[Rollout], objective: Any, logp: torch.Tensor, ref: torch.Tensor) -> torch.Tensor:
    """What a plain loop of torch takes a step on; differentiable in logp. Of GRPO it has the gradient of what the
    trainer reports as its loss, and another value."""
    if isinstance(objective, SFTConfig):
        return -logp.mean()
    if isinstance(objective, GRPOConfig):
        engine = torch.tensor([x for r in rollouts for x, m in zip(r.logprobs, r.loss_mask, strict=True) if m])
        return textbook_grpo(rollouts, objective, logp, engine, ref)
    return -(torch.tensor(brute_force_mgpo(rollouts, objective, logp.tolist(), ref.tolist())) * logp).sum()


def textbook_grpo(
    rollouts: list[Rollout], config: GRPOConfig, logp: torch.Tensor, engine: torch.Tensor, ref: torch.Tensor
) -> torch.Tensor:
    """The loss as GRPO trainers write it, over padded-free per-trajectory slices; differentiable in logp."""
    groups: dict[str, list[float]] = defaultdict(list)
    for rollout in rollouts:
        groups[rollout.group_id].append(rollout.terminal_reward)
    per_sequence, lengths, start = [], [], 0
    for rollout in rollouts:
        length = sum(rollout.loss_mask)
        span = slice(start, start + length)
        start += length
        rewards = groups[rollout.group_id]
        advantage = rollout.terminal_reward - statistics.fmean(rewards)
        spread = max(rewards) - min(rewards)
        if config.scale_by_std:
            advantage = advantage / statistics.stdev(rewards) if spread > 1e-6 else 0.0
        r = (logp[span] - engine[span]).exp()
        surrogate = torch.min(r * advantage, r.clamp(1 - config.clip_low, 1 + config.clip_high) * advantage)
        k3 = (ref[span] - logp[span]).exp() - (ref[span] - logp[span]) - 1
        per_sequence.append((-surrogate + config.kl * k3).sum())
        lengths.append(length)
    if config.aggregate == "sequence":
        return sum(s / n for s, n in zip(per_sequence, lengths, strict=True) if n) / len(rollouts)  # type: ignore[return-value]
    total = torch.stack(per_sequence).sum()
    return total / (sum(lengths) if config.aggregate == "token" else len(rollouts) * config.constant_length)
