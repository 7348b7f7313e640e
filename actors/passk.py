"""The rate of right samples, and Pass@k, the chance that at least one of k is right, from n samples of which c are.

With p the chance that one sample is right, Pass@k is 1 - (1 - p)^k. The estimate is the unbiased one; the interval is
Wilson's 95 % interval of p carried through that (monotone) formula, widened over every way in which samples that could
not be judged may turn out. The rate is c / n, with Wilson's interval, widened likewise.

A probe may end early: where the first samples show that the problem is easy (`easy`), and right oftener than a guess.
Hard problems, and those that nobody has solved yet, get all samples, because there each one decides. What this costs:
the rate of an easy problem is a little too high, by 0.03 at the most with 8 of 16 samples (tests/actors/test_passk.py
sums it over all outcomes).
"""

from __future__ import annotations

from math import comb, sqrt

from pipeline.records import Failure, Probe

Z = 1.959964
"""The normal quantile of a two-sided 95 % interval."""


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The unbiased estimate 1 - C(n-c, k) / C(n, k): the share of k-subsets of the samples with a right one."""
    if not 0 <= correct <= n or not 1 <= k <= n:
        raise ValueError(f"pass@k needs 0 <= correct <= n and 1 <= k <= n, got n={n} correct={correct} k={k}")
    return 1.0 - comb(n - correct, k) / comb(n, k)


def wilson(n: int, correct: int) -> tuple[float, float]:
    """Wilson's score interval of a share."""
    share = correct / n
    scale = 1 + Z**2 / n
    centre = (share + Z**2 / (2 * n)) / scale
    half = Z * sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)) / scale
    return max(0.0, centre - half), min(1.0, centre + half)


def easy(n: int, correct: int, above: float) -> bool:
    """The whole interval of the rate lies above `above`."""
    return wilson(n, correct)[0] > above


def estimate(problem_id: str, correct: int, wrong: int, unknown: int, k: int, prober: str) -> Probe:
    """Judged samples -> Probe. The estimate is made from the judged samples; unknown ones only widen the interval.

    Raises Failure when fewer than k samples could be judged: there is nothing to estimate Pass@k from.
    """
    judged = correct + wrong
    if judged < k:
        raise Failure(
            f"problem {problem_id}: {judged} of {judged + unknown} samples could be judged, pass@{k} needs {k}"
        )
    n = judged + unknown
    point = pass_at_k(judged, correct, k)
    rate_low, rate_high = wilson(n, correct)[0], wilson(n, correct + unknown)[1]
    low = 1.0 - (1.0 - rate_low) ** k
    high = 1.0 - (1.0 - rate_high) ** k
    return Probe(
        problem_id=problem_id,
        n=n,
        correct=correct,
        unknown=unknown,
        k=k,
        pass_at_k=point,
        low=min(low, point),
        high=max(high, point),
        rate_low=rate_low,
        rate_high=rate_high,
        prober=prober,
    )
