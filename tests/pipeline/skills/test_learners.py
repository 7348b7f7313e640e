"""The curriculum teaches simulated learners more of what they are worst at than uniform draws do."""

from __future__ import annotations

from statistics import mean, stdev

import pytest

from tests.pipeline.skills.learners import KINDS, STARTS, course

SEEDS = 10


def pairs(name: str) -> list[tuple]:
    return [tuple(course(KINDS[name], seed, 150, uniform) for uniform in (False, True)) for seed in range(SEEDS)]


@pytest.mark.parametrize("name", sorted(set(KINDS) - {"capped"}))
def test_the_weakest_category_gets_more_and_ends_better(name: str) -> None:
    found = pairs(name)
    assert mean(a.weakest_share for a, _ in found) > 1.25 * mean(b.weakest_share for _, b in found)
    gained = [a.weakest - b.weakest for a, b in found]
    assert mean(gained) > 3 * stdev(gained) / SEEDS**0.5 > 0


def test_a_category_that_nobody_can_learn_takes_much_and_starves_no_other() -> None:
    """What p(c) ~ 1 / (m_c + epsilon) costs: bounded by epsilon, so that every other category goes on being taught."""
    found = pairs("capped")
    assert mean(a.shares["rare"] for a, _ in found) > 0.4
    assert all(min(a.shares[c] for c in STARTS) > 0.05 for a, _ in found)
    assert mean(b.mean - a.mean for a, b in found) < 0.06
