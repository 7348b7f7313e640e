"""The objectives against independent oracles: plain Python loops, autograd of the textbook loss, GVPO, SAPO."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import GRPOConfig, MGPOConfig, MGPONoStageConfig, SFTConfig
from pipeline.records import Rollout
from tests.trainers.oracles import (
    brute_force_mgpo,
    finite_differences,
    log_probabilities,
    textbook_grpo,
    weights_of,
)
from tests.trainers.worlds import alone, batch_of, make_rollout, ragged, some_rollouts, totals_of
from trainers.batches import StepBatch
from trainers.objectives import make
from trainers.objectives.mgpo import advantages, gate, stage_advantages, trajectory_advantages

# ---------------------------------------------------------------- MGPO


MGPO_CONFIGS = st.sampled_from([MGPOConfig, MGPONoStageConfig]).flatmap(
    lambda config: st.builds(
        config,
        omega=st.sampled_from([0.0, 0.5, 1.0]),
        beta=st.sampled_from([0.0, 0.1]),
        tau_pos=st.just(1.0),
        tau_neg=st.sampled_from([1.05, 3.0]),
        ratio=st.sampled_from(["token", "action"]),
        implicit=st.sampled_from(["sum", "mean"]),
        scope=st.sampled_from(["group", "batch"]),
        baseline=st.sampled_from(["group", "stage"]),
        lone=st.sampled_from(["zero", "group"]),
        zero_sum=st.sampled_from(["actions", "trajectories"]),
        importance_cap=st.sampled_from([None, 1.2]),
    )
)


@settings(max_examples=150, deadline=None)
@given(ragged(), MGPO_CONFIGS, st.integers(0, 100))
def test_mgpo_equals_the_brute_force_loop(rollouts: list[Rollout], config: MGPOConfig, seed: int) -> None:
    batch = batch_of(rollouts)
    logp, ref = log_probabilities(batch, seed)
    expected = brute_force_mgpo(rollouts, config, logp.tolist(), ref.tolist())
    torch.testing.assert_close(
        weights_of(config, batch, logp, ref), torch.tensor(expected, dtype=torch.float32), rtol=1e-4, atol=1e-5
    )


@settings(max_examples=60, deadline=None)
@given(ragged(), MGPO_CONFIGS)
def test_mgpo_weights_are_finite_whatever_the_policies_say(rollouts: list[Rollout], config: MGPOConfig) -> None:
    batch = batch_of(rollouts)
    logp, ref = log_probabilities(batch, 0, spread=200.0)
    assert weights_of(config, batch, logp, ref).isfinite().all()


@pytest.mark.parametrize("count", ["actions", "trajectories"])
def test_a_batch_scoped_mean_spans_ranks(count: Any) -> None:
    """Two ranks that exchange sums get the weights that one rank with all groups gets."""
    rollouts = some_rollouts(0, groups=4)
    config = MGPOConfig(scope="batch", zero_sum=count)
    whole = batch_of(rollouts)
    logp, ref = log_probabilities(whole, 1)
    expected = weights_of(config, whole, logp, ref)
    shares = [[r for r in rollouts if r.group_id in names] for names in ({"g0", "g1"}, {"g2", "g3"})]
    batches = [batch_of(share) for share in shares]
    cut = len(batches[0].loss_N)
    parts = [(logp[:cut], ref[:cut]), (logp[cut:], ref[cut:])]
    sent: list[torch.Tensor] = []
    for batch, (mine, theirs) in zip(batches, parts, strict=True):
        make(config).weights(batch.tokens, mine, theirs, totals_of(whole), lambda t: (sent.append(t), t)[1])
    got = [
        make(config).weights(batch.tokens, mine, theirs, totals_of(whole), lambda t: sent[0] + sent[1])
        for batch, (mine, theirs) in zip(batches, parts, strict=True)
    ]
    torch.testing.assert_close(torch.cat(got), expected)


@pytest.mark.parametrize("scope", ["group", "batch"])
def test_mgpo_weights_sum_to_zero_over_actions(scope: str) -> None:
    """Step 5, seen from outside: with one token an action and r = 1 the gate is open and the weights cancel."""
    rng = np.random.default_rng(0)
    rollouts = [
        make_rollout(f"{g}-{i}", f"g{g}", [(s, float(rng.normal()), 1) for s in range(3)], float(rng.normal()), rng)
        for g in range(3)
        for i in range(4)
    ]
    batch = batch_of(rollouts)
    _, ref = log_probabilities(batch, 2)
    weight = weights_of(MGPOConfig(scope=scope), batch, batch.tokens.engine_K, ref)  # type: ignore[arg-type]
    assert weight.abs().max() > 1e-3
    sums = [weight] if scope == "batch" else weight.split(12)
    assert all(abs(part.sum()) < 1e-6 for part in sums)


def failing_and_refined() -> StepBatch:
    """Ten groups as a proposer plays them: drafts that pass go on to submit and are paid; drafts that fail are refined,
    one of three of these with success, and submit too."""
    rng = np.random.default_rng(4)
    rollouts = []
    for g in range(10):
        for i in range(8):
            draft, check, refine, finalize = range(4)
            if i < 4:
                actions, reward = [(draft, 0.0, 5), (check, 0.2, 4), (finalize, 0.0, 3)], 1.5 + rng.random()
            else:
                mended = i == 4 or (i == 5 and g % 3 == 0)
                actions = [(draft, 0.0, 5), (check, -0.2, 4), (refine, 0.2 * mended, 6), (finalize, 0.0, 3)]
                reward = mended * (1.5 + rng.random())
            rollouts.append(make_rollout(f"{g}-{i}", f"g{g}", actions, float(reward), rng))
    return batch_of(rollouts)


def test_a_baseline_over_those_that_reached_the_stage_does_not_discourage_refine_as_such() -> None:
    """Only failing drafts are refined, so against the whole group Refine looks bad on the mean, whatever it does; among
    those that were refined its mean is zero, and what mended its draft stands above what did not."""
    tokens = failing_and_refined().tokens
    refine = tokens.stage_A == 2
    paper = advantages(MGPOConfig(omega=0), tokens)
    staged = advantages(MGPOConfig(omega=0, baseline="stage"), tokens)
    assert paper[refine].mean() < -0.3
    assert staged[refine].mean() == pytest.approx(0, abs=1e-6)
    mended = tokens.process_A[refine] > 0
    assert staged[refine][mended].min() > staged[refine][~mended].max()
    torch.testing.assert_close(staged[tokens.stage_A == 0], paper[tokens.stage_A == 0])  # all have drafted


def test_a_lone_action_is_compared_with_nobody_or_with_the_whole_group() -> None:
    rng = np.random.default_rng(0)
    rollouts = [make_rollout("a", "g", [(0, 0.0, 2), (2, 0.2, 2)], 1.0, rng)]
    rollouts += [make_rollout(str(i), "g", [(0, 0.0, 2)], 0.0, rng) for i in range(3)]
    tokens, lone = batch_of(rollouts).tokens, 1
    assert stage_advantages(tokens, "zero")[lone] == 0
    assert stage_advantages(tokens, "group")[lone] == pytest.approx(0.8 * 0.2 / statistics.stdev([0.2, 0, 0, 0, 0]))
    assert advantages(MGPOConfig(omega=0, baseline="stage"), tokens)[lone] == 0
    compared = advantages(MGPOConfig(omega=0, baseline="stage", lone="group"), tokens)
    assert compared[lone] == trajectory_advantages(tokens)[0] > 0


def test_a_mean_over_trajectories_does_not_let_long_ones_weigh_more() -> None:
    """One long failure among short successes: over actions the mean is dragged down to it, so that it is hardly
    discouraged; over trajectories each counts once, and the trajectories' mean weights sum to zero."""
    rng = np.random.default_rng(0)
    rollouts = [make_rollout("long", "g", [(2, 0.0, 1)] * 12, 0.0, rng)]
    rollouts += [make_rollout(str(i), "g", [(0, 0.0, 1)], 1.0, rng) for i in range(3)]
    batch = batch_of(rollouts)
    counts: tuple[Any, Any] = ("actions", "trajectories")
    engine = batch.tokens.engine_K
    by = {count: weights_of(MGPOConfig(beta=0, zero_sum=count), batch, engine, engine) for count in counts}
    assert by["trajectories"][0] < 2 * by["actions"][0] < 0
    assert by["actions"].sum() == pytest.approx(0, abs=1e-6)
    assert by["trajectories"][:12].mean() + by["trajectories"][12:].sum() == pytest.approx(0, abs=1e-6)


GVPO_CONFIG = MGPOConfig(implicit="sum", beta=0.2, importance_cap=None)


def gvpo_loss(batch: StepBatch, logp: torch.Tensor, ref: torch.Tensor) -> torch.Tensor:
    """GVPO's squared error over the actions of each group, 1/2 sum ((R - mean R) - (A - mean A))^2, in the dtype of
    `logp`."""
    config, tokens = GVPO_CONFIG, batch.tokens
    reward = torch.zeros(len(tokens.seq_A), dtype=logp.dtype).index_add(0, tokens.action_K, config.beta * (logp - ref))
    advantage = trajectory_advantages(tokens)[tokens.seq_A] + config.omega * stage_advantages(tokens)
    loss = torch.zeros((), dtype=logp.dtype)
    for group in range(tokens.groups):
        here = tokens.group_A == group
        loss = loss + 0.5 * (((reward - reward[here].mean()) - (advantage - advantage[here].mean()))[here] ** 2).sum()
    return loss


def test_mgpo_is_the_gradient_of_gvpos_squared_error() -> None:
    """With summed log ratios and an open gate, beta N L has its gradient, taken through R and its mean."""
    batch = batch_of(some_rollouts(5))
    _, ref = log_probabilities(batch, 3)
    logp = batch.tokens.engine_K.clone().requires_grad_()  # r = 1: the gate is 1
    gvpo_loss(batch, logp, ref).backward()
    weight = weights_of(GVPO_CONFIG, batch, logp, ref)
    torch.testing.assert_close(-weight * GVPO_CONFIG.beta * len(batch.loss_N), logp.grad, rtol=1e-4, atol=1e-5)


def test_mgpo_weights_match_finite_differences_of_gvpos_squared_error() -> None:
    batch = batch_of(some_rollouts(8))
    logp, (_, ref) = batch.tokens.engine_K, log_probabilities(batch, 5)
    weight = weights_of(GVPO_CONFIG, batch, logp, ref)
    slopes = finite_differences(lambda x: gvpo_loss(batch, x, ref.double()), logp)
    for n, slope in slopes.items():
        assert -slope == pytest.approx(GVPO_CONFIG.beta * len(batch.loss_N) * float(weight[n]), rel=1e-3, abs=1e-6)


def test_the_gate_is_sapos_gradient_weight() -> None:
    """SAPO's surrogate 4/tau * sigmoid(tau (r - 1)) has sech^2(tau/2 (r - 1)) as its derivative in r."""
    config = MGPOConfig(tau_pos=0.7, tau_neg=2.0)
    ratio = torch.linspace(0, 4, 41, dtype=torch.float64, requires_grad=True)
    for sign, tau in ((1.0, 0.7), (-1.0, 2.0)):
        (grad,) = torch.autograd.grad((4 / tau * torch.sigmoid(tau * (ratio - 1))).sum(), ratio)
        torch.testing.assert_close(gate(config, ratio.detach(), torch.full_like(ratio, sign)), grad)


@pytest.mark.parametrize("config", [MGPOConfig(), GRPOConfig(kl=0.1), SFTConfig()], ids=lambda config: config.name)
def test_weights_carry_no_gradient(config: Any) -> None:
    """Step 7: the gradient of the loss is that of log pi alone, although MGPO's and GRPO's weights are made of it."""
    batch = batch_of(some_rollouts(6))
    logp, ref = log_probabilities(batch, 4)
    logp.requires_grad_()
    weight = weights_of(config, batch, logp, ref)
    assert not weight.requires_grad
    (grad,) = torch.autograd.grad(-(weight * logp).sum(), logp)
    torch.testing.assert_close(grad, -weight)


@pytest.mark.parametrize("reward", [0.0, 1.0, 3.3])
def test_equal_rewards_give_no_advantage(reward: float) -> None:
    rng = np.random.default_rng(0)
    rollouts = [make_rollout(str(i), "g", [(0, 0.1 + 0.2, 2), (1, float(i == 0), 2)], reward, rng) for i in range(5)]
    tokens = batch_of(rollouts).tokens
    assert trajectory_advantages(tokens).tolist() == [0.0] * 5
    by_stage = stage_advantages(tokens)
    assert (by_stage[tokens.stage_A == 0] == 0).all()
    assert (by_stage[tokens.stage_A == 1] != 0).all()


def test_rewards_that_differ_by_rounding_only_are_equal() -> None:
    """0.1 + 0.2 is not 0.3 in floating point; a z-score would blow the difference up to +-1."""
    rng = np.random.default_rng(0)
    third = np.float32(0.3)
    rewards = [float(third), float(np.nextafter(third, np.float32(1))), float(third)]
    rollouts = [make_rollout(str(i), "g", [(0, r, 1)], r, rng) for i, r in enumerate(rewards)]
    tokens = batch_of(rollouts).tokens
    assert len(set(tokens.reward_S.tolist())) == 2
    assert trajectory_advantages(tokens).tolist() == [0.0] * 3
    assert stage_advantages(tokens).tolist() == [0.0] * 3


def test_the_scale_of_the_rewards_does_not_matter() -> None:
    """No epsilon in the denominator: tiny differences that are differences count in full."""
    rollouts = some_rollouts(11)
    small = [r.model_copy(update={"terminal_reward": r.terminal_reward * 1e-9}) for r in rollouts]
    torch.testing.assert_close(
        trajectory_advantages(batch_of(small).tokens), trajectory_advantages(batch_of(rollouts).tokens)
    )


def test_stages_are_compared_with_themselves_only() -> None:
    """Adding a constant to all rewards of one stage of one group changes no advantage."""
    rollouts = some_rollouts(7)
    before = stage_advantages(batch_of(rollouts).tokens)
    shifted = [
        r.model_copy(
            update={
                "process_rewards": tuple(
                    p + 10 * (s == 2 and r.group_id == "g1")
                    for p, s in zip(r.process_rewards, r.action_stage, strict=True)
                )
            }
        )
        for r in rollouts
    ]
    torch.testing.assert_close(stage_advantages(batch_of(shifted).tokens), before, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- GRPO against autograd of the textbook loss, and SFT


@settings(max_examples=100, deadline=None)
@given(
    ragged(),
    st.builds(
        GRPOConfig,
        clip_low=st.sampled_from([0.1, 0.2]),
        clip_high=st.sampled_from([0.2, 0.4]),
        kl=st.sampled_from([0.0, 0.05]),
        scale_by_std=st.booleans(),
        aggregate=st.sampled_from(["sequence", "token", "constant"]),
        importance_cap=st.none(),
    ),
    st.integers(0, 100),
)
def test_grpo_weights_are_the_textbook_gradient(rollouts: list[Rollout], config: GRPOConfig, seed: int) -> None:
    batch = batch_of(rollouts)
    if not len(batch.loss_N):
        return
    logp, ref = log_probabilities(batch, seed, spread=0.3)
    logp.requires_grad_()
    loss = textbook_grpo(rollouts, config, logp, batch.tokens.engine_K, ref)
    (grad,) = torch.autograd.grad(loss, logp)
    weight = weights_of(config, batch, logp.detach(), ref)
    torch.testing.assert_close(-weight, grad, rtol=1e-4, atol=1e-6)


def test_grpo_weights_match_finite_differences() -> None:
    rollouts = some_rollouts(8)
    batch = batch_of(rollouts)
    config = GRPOConfig(kl=0.1, importance_cap=None)
    logp, ref = log_probabilities(batch, 5, spread=0.3)
    weight = weights_of(config, batch, logp, ref)
    engine = batch.tokens.engine_K.double()
    slopes = finite_differences(lambda x: textbook_grpo(rollouts, config, x, engine, ref.double()), logp)
    for n, slope in slopes.items():
        assert -slope == pytest.approx(float(weight[n]), rel=1e-3, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(ragged(), st.sampled_from([None, 2.0]))
def test_grpo_weights_are_finite_whatever_the_policies_say(rollouts: list[Rollout], cap: float | None) -> None:
    batch = batch_of(rollouts)
    if not len(batch.loss_N):
        return
    logp, ref = log_probabilities(batch, 0, spread=200.0)
    assert weights_of(GRPOConfig(kl=0.1, importance_cap=cap), batch, logp, ref).isfinite().all()


def test_the_importance_cap_bounds_a_stale_token_with_a_negative_advantage() -> None:
    rng = np.random.default_rng(0)
    rollouts = [make_rollout(str(i), "g", [(0, 0.0, 4)], float(i), rng) for i in range(2)]
    batch = batch_of(rollouts)
    logp = batch.tokens.engine_K + 3.0
    free = weights_of(GRPOConfig(importance_cap=None), batch, logp, logp)
    capped = weights_of(GRPOConfig(importance_cap=2.0), batch, logp, logp)
    assert free[:4].mean() == pytest.approx(10.04 * float(capped[:4].mean()), rel=1e-2)
    assert (capped[4:] == 0).all()  # the positive one is clipped


def test_sft_is_the_mean_over_the_loss_tokens_of_all_ranks() -> None:
    batch = batch_of(some_rollouts(9))
    weight = weights_of(SFTConfig(), batch, batch.tokens.engine_K, batch.tokens.engine_K)
    assert float(weight.sum()) == pytest.approx(1.0)
    assert (weight == weight[0]).all()


def test_a_micro_batch_of_grpo_has_the_weights_of_the_whole() -> None:
    """Objectives that do not read the whole step may be asked for a part of it."""
    batch = batch_of(some_rollouts(10))
    logp, ref = log_probabilities(batch, 6)
    config = GRPOConfig(kl=0.1, aggregate="sequence")
    whole = weights_of(config, batch, logp, ref)
    part = torch.arange(len(logp))[1::3]
    some = make(config).weights(batch.tokens.select(part), logp[part], ref[part], totals_of(batch), alone)
    torch.testing.assert_close(some, whole[part])
