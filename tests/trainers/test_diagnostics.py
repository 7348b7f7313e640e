"""The figures of a training step against plain Python over the records."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import GRPOConfig, MGPOConfig, SFTConfig
from pipeline.records import COGNITIVE_STAGES, Rollout
from tests.trainers.oracles import log_probabilities, plain_advantages
from tests.trainers.worlds import alone, batch_of, make_rollout, some_rollouts, totals_of
from trainers import diagnostics
from trainers.objectives import make


def figures(rollouts: list[Rollout], config: Any, seed: int = 0) -> tuple[dict[str, float], Any, Any, Any]:
    batch = batch_of(rollouts)
    logp, ref = log_probabilities(batch, seed, spread=1.5)
    objective, totals = make(config), totals_of(batch)
    weight = objective.weights(batch.tokens, logp, ref, totals, alone)
    entropy = torch.full_like(logp, 0.7)
    means = diagnostics.common(batch.tokens, logp, ref, weight, entropy, totals.tokens, objective.of_engine)
    means |= objective.diagnostics(batch.tokens, logp, weight)
    return diagnostics.reduce(means, alone), batch, logp, ref


def with_a_flat_group() -> list[Rollout]:
    """Three groups that differ within, and one in which all rewards are equal."""
    return [
        r.model_copy(update={"terminal_reward": 1.0}) if r.group_id == "g3" else r for r in some_rollouts(3, groups=4)
    ]


def test_what_the_report_shows_of_mgpo() -> None:
    rollouts = with_a_flat_group()
    found, batch, logp, ref = figures(rollouts, MGPOConfig(tau_pos=1.0, tau_neg=2.0))
    engine = batch.tokens.engine_K
    assert found["degenerate_groups"] == 0.25
    assert found["response_tokens"] == pytest.approx(statistics.fmean(sum(r.loss_mask) for r in rollouts))
    assert found["reward"] == pytest.approx(statistics.fmean(r.terminal_reward for r in rollouts), rel=1e-5)
    assert found["entropy"] == pytest.approx(0.7)
    back = [float(b - a) for a, b in zip(logp, ref, strict=True)]
    assert found["ref_kl"] == pytest.approx(statistics.fmean(math.exp(b) - 1 - b for b in back), rel=1e-4)
    drift = [float(a - b) for a, b in zip(logp, engine, strict=True)]
    assert found["engine_kl"] == pytest.approx(statistics.fmean(math.exp(d) - 1 - d for d in drift), rel=1e-4)
    weight = make(MGPOConfig(tau_pos=1.0, tau_neg=2.0)).weights(batch.tokens, logp, ref, totals_of(batch), alone)
    gates = [
        math.cosh((2.0 if w < 0 else 1.0) / 2 * (math.exp(d) - 1)) ** -2
        for w, d in zip(weight.tolist(), drift, strict=True)
    ]
    assert found["gate"] == pytest.approx(statistics.fmean(gates), rel=1e-4)
    assert found["gate_saturated"] == pytest.approx(statistics.fmean(g < 0.5 for g in gates))
    assert 0 < found["gate_saturated"] < 1


def test_a_teachers_text_has_no_engine_to_differ_from() -> None:
    found, *_ = figures(some_rollouts(3, groups=2), SFTConfig())
    assert "nll" in found and not {"engine_kl", "engine_gap"} & set(found)


def test_stage_statistics_are_those_of_their_stage() -> None:
    rollouts, config = some_rollouts(4), MGPOConfig()
    found, *_ = figures(rollouts, config)
    outer, inner = plain_advantages(rollouts, config)
    for index, stage in enumerate(COGNITIVE_STAGES):
        here = [(i, t) for i, r in enumerate(rollouts) for t, s in enumerate(r.action_stage) if s == index]
        process = [rollouts[i].process_rewards[t] for i, t in here]
        fused = [outer[i, t] + config.omega * inner[i, t] for i, t in here]
        assert found[f"process_reward/{stage}"] == pytest.approx(statistics.fmean(process), rel=1e-4)
        assert found[f"advantage/{stage}"] == pytest.approx(statistics.fmean(fused), rel=1e-4, abs=1e-6)
        assert found[f"advantage/{stage}_rms"] == pytest.approx(root_mean_square(fused), rel=1e-4)
        by_stage = root_mean_square([inner[key] for key in here])
        assert found[f"stage_advantage/{stage}_rms"] == pytest.approx(by_stage, rel=1e-4)
    zero = statistics.fmean(a == 0 for a in inner.values())
    assert found["stage_advantage_zero"] == pytest.approx(zero) and 0 < zero < 1


def root_mean_square(values: list[float]) -> float:
    return math.sqrt(statistics.fmean(v * v for v in values))


def test_a_stage_that_nobody_entered_is_left_out() -> None:
    rng = np.random.default_rng(0)
    found, *_ = figures([make_rollout(str(i), "g", [(0, float(i), 3)], float(i), rng) for i in range(4)], MGPOConfig())
    assert "process_reward/draft" in found and "process_reward/refine" not in found


def test_grpo_counts_what_it_clips() -> None:
    rollouts = with_a_flat_group()
    found, batch, logp, _ = figures(rollouts, GRPOConfig(clip_low=0.2, clip_high=0.2))
    groups: dict[str, list[float]] = {}
    for r in rollouts:
        groups.setdefault(r.group_id, []).append(r.terminal_reward)
    signs = [
        math.copysign(1, r.terminal_reward - statistics.fmean(groups[r.group_id])) if r.group_id != "g3" else 0
        for r in rollouts
        for _ in range(sum(r.loss_mask))
    ]
    ratios = (logp - batch.tokens.engine_K).exp().tolist()
    clipped = [(s > 0 and q > 1.2) or (s < 0 and q < 0.8) for s, q in zip(signs, ratios, strict=True)]
    assert found["clip_share"] == pytest.approx(statistics.fmean(clipped))
    assert found["degenerate_groups"] == 0.25
