"""What paired figures of a few seeds allow to say: Student's t, two one-sided tests, Holm's correction, power.

Invariant: nothing here knows an arm or a metric. A difference is one number a seed; seeds are independent, and their
differences are taken as normal. Two questions are asked of a family of differences, each corrected over the family:

    is there a difference?           t against 0                                      -> holds, refuted
    is there none that matters?      two one-sided tests against a bound (TOST)       -> no difference

A family that answers neither leaves the ordering open. Distributions are computed here, by the incomplete beta function
and by integration: the core of the project needs no statistics package (tests hold them against scipy's).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

ALPHA = 0.05
POWER = 0.80
Verdict = Literal["holds", "refuted", "no difference", "open", "one seed", "not measured"]


@dataclass(frozen=True)
class Paired:
    """Differences between two arms, one a seed."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def spread(self) -> float:
        """Standard deviation over seeds. Of two values and more."""
        return stdev(self.values)

    def interval(self, level: float = 1 - ALPHA) -> tuple[float, float]:
        """Student's t, two-sided."""
        half = t_quantile(1 - (1 - level) / 2, len(self.values) - 1) * self._error
        return self.mean - half, self.mean + half

    @property
    def p(self) -> float:
        """Of a difference this far from 0 on either side, if there is none."""
        return 2 * self._above(-abs(self.mean))

    def p_within(self, bound: float) -> float:
        """TOST: of differences this small, if the true one is `bound` or more on either side."""
        return max(self._above(-(bound - self.mean)), self._above(-(bound + self.mean)))

    @property
    def _error(self) -> float:
        return self.spread / math.sqrt(len(self.values))

    def _above(self, distance: float) -> float:
        """P(T <= distance / error). Where no seed differs from another t would be infinite, whatever few seeds say, as
        figures that are shares of few episodes may: there it is what the signs of so many seeds allow to say."""
        if self._error < 1e-12:
            signs = 0.5 ** len(self.values)
            return 0.5 if abs(distance) < 1e-12 else 1 - signs if distance > 0 else signs
        return t_cdf(distance / self._error, len(self.values) - 1)


@dataclass(frozen=True)
class Tested:
    """What a difference came to within its family."""

    verdict: Verdict
    p: float | None = None
    """Of no difference, as Holm corrects it."""
    p_within: float | None = None
    """Of a difference of the bound or more, as Holm corrects it."""


def decide(family: Sequence[Paired | None], bounds: Sequence[float]) -> list[Tested]:
    """A verdict for each difference of a family that is tested together: `holds` where it is above 0, `refuted` where
    it is below, `no difference` where it is within its bound. One that is above or below 0 and within its bound is
    called by its sign; its `p_within` says that it is small. One that is not measured, or of one seed, is no test;
    it is corrected for all the same, so that no verdict becomes weaker by what is measured later."""
    able = [d is not None and len(d.values) > 1 for d in family]
    there = holm([d.p if d is not None and ok else 1.0 for d, ok in zip(family, able, strict=True)])
    within = holm(
        [d.p_within(b) if d is not None and ok else 1.0 for d, ok, b in zip(family, able, bounds, strict=True)]
    )

    def tested(difference: Paired | None, ok: bool, p: float, p_within: float) -> Tested:
        if difference is None or not ok:
            return Tested("not measured" if difference is None else "one seed")
        if p < ALPHA:
            return Tested("holds" if difference.mean > 0 else "refuted", p, p_within)
        return Tested("no difference" if p_within < ALPHA else "open", p, p_within)

    return [tested(*all_of) for all_of in zip(family, able, there, within, strict=True)]


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p-values (Holm 1979): the chance of any false claim in the family is at most the level."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = largest
    return adjusted


# ---------------------------------------------------------------- power


def power(difference: float, spread: float, seeds: int, alpha: float = ALPHA) -> float:
    """The probability that a paired t-test of so many seeds tells this difference from 0, in its direction. `spread`:
    standard deviation of a seed's difference."""
    df = seeds - 1
    return 1 - _noncentral_cdf(t_quantile(1 - alpha / 2, df), df, difference * math.sqrt(seeds) / spread)


def smallest_difference(spread: float, seeds: int, alpha: float = ALPHA, wanted: float = POWER) -> float:
    """The least difference that would be told with probability `wanted`."""
    return _least(lambda d: power(d, spread, seeds, alpha), wanted, spread)


def smallest_bound(spread: float, seeds: int, alpha: float = ALPHA, wanted: float = POWER) -> float:
    """The least bound that a true difference of 0 would be shown to lie within, with probability `wanted`.

    TOST rejects where |mean| + t * error < bound. A bound of b standard errors is met with the probability that |Z| <
    b - t S, where S is the estimated over the true standard error, independent of the mean."""
    df = seeds - 1
    t, error = t_quantile(1 - alpha, df), spread / math.sqrt(seeds)

    def met(bound: float) -> float:
        return _over_scale(lambda s: max(0.0, 2 * _normal_cdf(bound / error - t * s) - 1), df)

    return _least(met, wanted, error)


def _least(reached: Callable[[float], float], wanted: float, start: float) -> float:
    low, high = 0.0, max(start, 1e-12)
    while reached(high) < wanted:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) >= wanted else (middle, high)
    return high


# ---------------------------------------------------------------- distributions


def t_cdf(t: float, df: int) -> float:
    """P(T <= t) of Student's t with `df` degrees of freedom."""
    tail = _incomplete_beta(df / 2, 0.5, df / (df + t * t)) / 2
    return tail if t < 0 else 1 - tail


def t_quantile(p: float, df: int) -> float:
    """The t below which T lies with probability p, for p in (1/2, 1)."""
    low, high = 0.0, 1.0
    while t_cdf(high, df) < p:
        low, high = high, 2 * high
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, df) < p else (low, middle)
    return high


def _normal_cdf(z: float) -> float:
    return math.erfc(-z / math.sqrt(2)) / 2


def _noncentral_cdf(t: float, df: int, delta: float) -> float:
    """P((Z + delta) / S <= t), where df S^2 is chi-squared with df degrees of freedom."""
    return _over_scale(lambda s: _normal_cdf(t * s - delta), df)


_CELLS = 2000


def _over_scale(function: Callable[[float], float], df: int) -> float:
    """The mean of function(S), where df S^2 is chi-squared with df degrees of freedom; Simpson's rule."""
    end = 1 + 12 / math.sqrt(2 * df)
    width = end / _CELLS
    log_norm = math.log(2) + df / 2 * math.log(df / 2) - math.lgamma(df / 2)
    total = 0.0
    for i in range(_CELLS + 1):
        s = i * width
        if s > 0:
            density = math.exp(log_norm + (df - 1) * math.log(s) - df * s * s / 2)
        else:
            density = math.exp(log_norm) if df == 1 else 0.0
        total += (1 if i in (0, _CELLS) else 4 if i % 2 else 2) * density * function(s)
    return total * width / 3


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised, by its continued fraction (Lentz)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges fast
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    tiny = 1e-300
    c, d = 1.0, 1 / max(1 - (a + b) * x / (a + 1), tiny)
    value = d
    for m in range(1, 500):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + numerator * d or tiny)
            c = 1 + numerator / c or tiny
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * value
