"""Figures of samples."""

from __future__ import annotations

import math
from collections.abc import Sequence

_Z = 1.959964
_FEW = {1: 12.7062, 2: 4.3027, 3: 3.1824}


def mean(values: Sequence[float]) -> float:
    """The mean, 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Student's 95 % interval of the mean; None of fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    middle = mean(values)
    variance = sum((v - middle) ** 2 for v in values) / (n - 1)
    half = _t_quantile(n - 1) * math.sqrt(variance / n)
    return middle - half, middle + half


def _t_quantile(freedom: int) -> float:
    """Of a two-sided 95 % interval: from four degrees of freedom on by its expansion round the normal quantile, to
    within 0.001."""
    if freedom in _FEW:
        return _FEW[freedom]
    z = _Z
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**i for i, term in enumerate(terms, start=1))
