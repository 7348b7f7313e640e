from fractions import Fraction
from itertools import combinations
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.passk import easy, estimate, pass_at_k, wilson
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


@pytest.mark.parametrize("p", [0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98])
@pytest.mark.parametrize("n, first", [(16, 8), (32, 16), (16, 16)])
def test_the_rate_and_its_interval_hold_where_probes_end_early(p, n, first):
    """Summed over every outcome of the first samples and of the rest: what ends early biases the rate by less than
    0.03, the interval holds the truth, and a problem that is not easy is seldom taken for one."""
    mean = covered = stopped = total = 0.0
    for c in range(first + 1):
        ends = first < n and easy(first, c, 0.6)
        for more in range(1 if ends else n - first + 1):
            taken = first if ends else n
            weight = comb(first, c) * comb(taken - first, more) * p ** (c + more) * (1 - p) ** (taken - c - more)
            probe = estimate("p", c + more, taken - c - more, 0, 4, "m")
            assert probe.rate_low <= probe.rate <= probe.rate_high
            total += weight
            mean += weight * probe.rate
            covered += weight * (probe.rate_low <= p <= probe.rate_high)
            stopped += weight * ends
    assert total == pytest.approx(1)
    assert abs(mean - p) < (1e-9 if first == n else 0.03)
    assert covered > 0.9
    assert stopped <= (0.03 if p <= 0.6 else 1)


def test_nothing_unsolved_is_ever_easy():
    for n in range(1, 40):
        assert not easy(n, 0, 0.0)
        assert [easy(n, c, 0.6) for c in range(n + 1)] == sorted(easy(n, c, 0.6) for c in range(n + 1))
