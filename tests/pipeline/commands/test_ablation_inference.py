"""The statistics of the ablation, held against scipy, and against simulated seeds."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.commands.ablation.inference import (
    ALPHA,
    Paired,
    decide,
    holm,
    power,
    smallest_bound,
    smallest_difference,
    t_cdf,
    t_quantile,
)

SEEDS = st.lists(st.floats(-10, 10).map(lambda x: round(x, 3)), min_size=2, max_size=12).filter(
    lambda v: np.std(v) > 1e-3
)


# ---------------------------------------------------------------- distributions, tests


@pytest.mark.parametrize("df", [1, 2, 3, 7, 9, 30, 200])
def test_students_t_is_scipys(df: int) -> None:
    for t in (-40, -8, -1.3, -1e-9, 0, 0.2, 2.5, 30):
        assert t_cdf(t, df) == pytest.approx(stats.t.cdf(t, df), rel=1e-9, abs=1e-14)
    for p in (0.6, 0.9, 0.95, 0.975, 0.995, 0.9999):
        assert t_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.floats(0, 5))
def test_a_paired_test_and_its_interval_are_scipys(values: list[float], bound: float) -> None:
    found, theirs = Paired(tuple(values)), stats.ttest_1samp(values, 0.0)
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-6, abs=1e-12)
    interval = theirs.confidence_interval(0.95)
    assert found.interval() == pytest.approx((interval.low, interval.high), rel=1e-7, abs=1e-9)
    one = stats.ttest_1samp(values, bound, alternative="less").pvalue
    other = stats.ttest_1samp(values, -bound, alternative="greater").pvalue
    assert found.p_within(bound) == pytest.approx(max(one, other), rel=1e-6, abs=1e-12)


@given(SEEDS)
def test_within_a_bound_is_what_the_90_percent_interval_says(values: list[float]) -> None:
    """TOST at 5 % and the 90 % interval are one statement."""
    found = Paired(tuple(values))
    furthest = max(abs(end) for end in found.interval(0.90))
    assert found.p_within(furthest * 1.001) < ALPHA < found.p_within(furthest * 0.999)


def test_seeds_that_all_say_the_same_say_as_much_as_their_signs() -> None:
    """The sign test's p-values, where t is infinite: two seeds are two seeds, however equal."""
    for seeds in (2, 3, 8):
        theirs = stats.binomtest(seeds, seeds)
        assert Paired((0.5,) * seeds).p == pytest.approx(theirs.pvalue) and Paired((0.0,) * seeds).p == 1
        one_sided = stats.binomtest(seeds, seeds, alternative="greater").pvalue
        assert Paired((0.0,) * seeds).p_within(0.1) == pytest.approx(one_sided)
        assert Paired((0.2,) * seeds).p_within(0.1) == pytest.approx(1 - one_sided)
    assert decide([Paired((0.025, 0.025))], [0.03])[0].verdict == "open"


# ---------------------------------------------------------------- many tests


@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_rejects_what_its_step_down_rejects(ps: list[float]) -> None:
    """By the procedure as it was published: go up the sorted p-values until one exceeds alpha / (those left)."""
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    rejected = set(itertools.takewhile(lambda i: ps[i] <= ALPHA / (len(ps) - order.index(i)), order))
    adjusted = holm(ps)
    # On the edge a rounding may decide.
    assert {i for i, p in enumerate(adjusted) if p <= ALPHA - 1e-12} <= rejected
    assert rejected <= {i for i, p in enumerate(adjusted) if p <= ALPHA + 1e-12}


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_a_family_is_told_apart() -> None:
    large, small = (1.0, 1.1, 0.9, 1.05), (0.001, -0.001, 0.002, -0.002)
    wide = (3.0, -3.0, 2.0, -1.0)
    found = decide([Paired(large), Paired(tuple(-v for v in large)), Paired(small), Paired(wide), Paired((1.0,)), None],
                   [0.1] * 6)  # fmt: skip
    assert [t.verdict for t in found] == ["holds", "refuted", "no difference", "open", "one seed", "not measured"]
    alone = decide([Paired(large)], [0.1])[0].p
    assert alone is not None and found[0].p == pytest.approx(6 * alone)  # also for those that are no tests yet
    tiny = decide([Paired((0.010, 0.011, 0.009, 0.010))], [0.1])[0]
    assert tiny.verdict == "holds" and tiny.p_within is not None and tiny.p_within < ALPHA  # and yet it hardly matters


def test_a_family_without_any_difference_is_seldom_called_one() -> None:
    """Six tests of pure noise: without the correction 26 % of the families would hold a false claim."""
    rng = np.random.default_rng(1)
    families = 1000
    false = sum(
        any(t.verdict in ("holds", "refuted") for t in decide([Paired(tuple(rng.normal(size=8))) for _ in range(6)],
                                                              [0.1] * 6))
        for _ in range(families)
    )  # fmt: skip
    assert false / families < ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / families)


# ---------------------------------------------------------------- power


@pytest.mark.parametrize(("difference", "seeds", "alpha"), [(1.0, 8, 0.05), (0.5, 20, 0.01), (2.0, 3, 0.05)])
def test_power_is_that_of_the_noncentral_t(difference: float, seeds: int, alpha: float) -> None:
    delta, critical = difference * math.sqrt(seeds), stats.t.ppf(1 - alpha / 2, seeds - 1)
    assert power(difference, 1.0, seeds, alpha) == pytest.approx(stats.nct.sf(critical, seeds - 1, delta), abs=1e-7)


@pytest.mark.parametrize("spread", [0.02, 3.0])
@pytest.mark.parametrize("seeds", [3, 8])
def test_the_smallest_difference_is_told_with_80_percent(spread: float, seeds: int) -> None:
    difference = smallest_difference(spread, seeds)
    rng = np.random.default_rng(2)
    drawn = rng.normal(difference, spread, (4000, seeds))
    told = stats.ttest_1samp(drawn, 0.0, axis=1)
    share = float(((told.pvalue < 0.05) & (drawn.mean(axis=1) > 0)).mean())
    assert share == pytest.approx(0.80, abs=0.02)
    assert smallest_difference(spread, seeds, alpha=0.01) > difference > smallest_difference(spread, seeds + 5)


@pytest.mark.parametrize("seeds", [3, 8])
def test_the_smallest_bound_is_shown_with_80_percent(seeds: int) -> None:
    bound = smallest_bound(1.0, seeds)
    rng = np.random.default_rng(3)
    drawn = rng.normal(0.0, 1.0, (2000, seeds))
    share = np.mean([Paired(tuple(row)).p_within(bound) < ALPHA for row in drawn])
    assert share == pytest.approx(0.80, abs=0.03)
