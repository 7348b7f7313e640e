"""Stage credit where the terminal reward is sparse: a problem whose optimum is known, learned by our own objectives."""

from __future__ import annotations

import pytest

from tests.trainers.bandit import LEARNERS, SOLVED, curve, steps_to_solve

SEEDS = range(10)
LR, STEPS = 0.2, 400


@pytest.mark.parametrize("noise", [pytest.param(0.0, marks=pytest.mark.slow), 0.3])
def test_mgpo_with_stage_credit_solves_it_long_before_sparse_grpo_does(noise: float) -> None:
    """Blind, one episode of 4096 is right. Three process rewards of ten may be wrong."""
    sparse = [curve(LEARNERS["GRPO"], LR, STEPS, seed, noise=noise) for seed in SEEDS]
    staged = [curve(LEARNERS["MGPO"], LR, STEPS, seed, noise=noise) for seed in SEEDS]
    assert all(c[0] == pytest.approx(8**-4) for c in sparse + staged)
    assert all(c[-1] >= SOLVED for c in staged)
    assert 3 * steps_to_solve(staged) < steps_to_solve(sparse) < STEPS


def test_without_stage_credit_and_implicit_reward_what_is_left_is_grpo() -> None:
    """On-policy, all trajectories of one length. What sets the two apart elsewhere is beta's pull to the start."""
    for seed in SEEDS:
        assert curve(LEARNERS["the same, beta 0"], LR, 30, seed) == pytest.approx(
            curve(LEARNERS["GRPO"], LR, 30, seed), rel=1e-3
        )


def test_a_learner_that_is_told_nothing_does_not_solve_it() -> None:
    """The world gives nothing away: process rewards that say nothing leave MGPO with the sparse reward."""
    deaf = [curve(LEARNERS["MGPO"], LR, 60, seed, noise=0.5) for seed in SEEDS]
    assert steps_to_solve(deaf) == float("inf")
