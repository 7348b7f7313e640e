from fractions import Fraction
from itertools import combinations
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.passk import estimate, pass_at_k, wilson
from pipeline.records import Failure


@st.composite
def counts(draw, most=9):
    n = draw(st.integers(1, most))
    return n, draw(st.integers(0, n)), draw(st.integers(1, n))


@given(counts())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(nck):
    n, c, k = nck
    samples = [i < c for i in range(n)]
    subsets = list(combinations(samples, k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


@pytest.mark.parametrize(
    "n, k, p", [(8, 4, Fraction(1, 3)), (16, 16, Fraction(1, 10)), (12, 5, Fraction(3, 4)), (6, 1, Fraction(1, 2))]
)
def test_pass_at_k_is_unbiased(n, k, p):
    """Its mean over all outcomes of n draws is 1 - (1 - p)^k, exactly."""
    mean = sum(
        comb(n, c) * p**c * (1 - p) ** (n - c) * (1 - Fraction(comb(n - c, k), comb(n, k))) for c in range(n + 1)
    )
    assert mean == 1 - (1 - p) ** k
    measured = sum(float(comb(n, c) * p**c * (1 - p) ** (n - c)) * pass_at_k(n, c, k) for c in range(n + 1))
    assert measured == pytest.approx(float(mean), abs=1e-9)


@pytest.mark.parametrize("n, c, k", [(4, 5, 2), (4, -1, 2), (4, 2, 5), (4, 2, 0)])
def test_pass_at_k_refuses_impossible_counts(n, c, k):
    with pytest.raises(ValueError, match="pass@k"):
        pass_at_k(n, c, k)


@pytest.mark.parametrize(
    "n, c, low, high", [(10, 0, 0.0, 0.2775), (10, 5, 0.2366, 0.7634), (100, 90, 0.8256, 0.9448), (8, 8, 0.6756, 1.0)]
)
def test_wilson_against_published_values(n, c, low, high):
    assert wilson(n, c) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize("p, n, k", [(0.1, 8, 4), (0.5, 8, 4), (0.3, 16, 16), (0.05, 64, 16)])
def test_interval_covers_the_truth(p, n, k):
    """The chance that the interval holds 1 - (1 - p)^k, summed over all outcomes: near 95 %, never far below."""
    truth = 1 - (1 - p) ** k
    covered = 0.0
    for c in range(n + 1):
        probe = estimate("p", c, n - c, 0, k, "m")
        if probe.low <= truth <= probe.high:
            covered += comb(n, c) * p**c * (1 - p) ** (n - c)
    assert covered > 0.9


@given(counts(), st.integers(0, 5))
def test_unknown_samples_widen_the_interval_and_do_not_move_the_estimate(nck, unknown):
    n, c, k = nck
    sure = estimate("p", c, n - c, 0, k, "m")
    unsure = estimate("p", c, n - c, unknown, k, "m")
    assert unsure.pass_at_k == sure.pass_at_k == pytest.approx(pass_at_k(n, c, k))
    assert 0 <= unsure.low <= unsure.pass_at_k <= unsure.high <= 1
    assert unsure.low <= sure.low + 1e-12
    if unknown:
        assert unsure.high >= estimate("p", c + unknown, n - c, 0, k, "m").high - 1e-12
    assert (unsure.n, unsure.correct, unsure.unknown) == (n + unknown, c, unknown)


def test_too_few_judged_samples_give_no_estimate():
    with pytest.raises(Failure, match=r"3 of 8 samples could be judged, pass@4 needs 4"):
        estimate("p", 1, 2, 5, 4, "m")
