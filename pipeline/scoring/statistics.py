"""Figures of samples."""

from __future__ import annotations

import math
from collections.abc import Sequence


def mean(values: Sequence[float]) -> float:
    """The mean, 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def interval_of_mean(values: Sequence[float], low: float = -math.inf, high: float = math.inf) -> list[float] | None:
    """95 %, by the normal approximation, of values that lie between `low` and `high`; None of fewer than two."""
    n = len(values)
    if n < 2:
        return None
    m = mean(values)
    half = 1.96 * math.sqrt(sum((v - m) ** 2 for v in values) / (n - 1) / n)
    return [max(low, m - half), min(high, m + half)]
