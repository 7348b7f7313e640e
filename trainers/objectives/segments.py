"""Sums, means and z-scores over ragged segments, with degenerate segments defined, not smoothed.

A segment is degenerate when it has one member or all its values are equal (within float32 rounding). Its z-scores
are 0 by definition: there is nothing to prefer. Elsewhere no epsilon enters, so z-scores do not depend on the
scale of the rewards. Shapes: X values, M segments.
"""

from __future__ import annotations

import torch
from torch import Tensor

EQUAL = 1e-6
"""Values closer than this, relative to the largest of the segment, are equal: float32 sums of rewards differ by it."""


def segment_sum(values_X: Tensor, segment_X: Tensor, segments: int) -> Tensor:
    return values_X.new_zeros(segments).index_add_(0, segment_X, values_X)


def segment_mean(values_X: Tensor, segment_X: Tensor, segments: int) -> Tensor:
    """Mean of each segment, 0 of an empty one."""
    count_M = segment_sum(torch.ones_like(values_X), segment_X, segments)
    return segment_sum(values_X, segment_X, segments) / count_M.clamp(min=1)


def centre(values_X: Tensor, segment_X: Tensor, segments: int) -> Tensor:
    """Values less the mean of their segment."""
    return values_X - segment_mean(values_X, segment_X, segments)[segment_X]


def degenerate(values_X: Tensor, segment_X: Tensor, segments: int) -> Tensor:
    """bool_M: one member, or all values equal. Empty segments count as degenerate."""
    low_M = values_X.new_full((segments,), torch.inf).scatter_reduce(0, segment_X, values_X, "amin")
    high_M = values_X.new_full((segments,), -torch.inf).scatter_reduce(0, segment_X, values_X, "amax")
    size_M = torch.maximum(low_M.abs(), high_M.abs())
    return ~(high_M - low_M > EQUAL * size_M)


def standardise(values_X: Tensor, segment_X: Tensor, segments: int) -> Tensor:
    """(value - mean) / sample standard deviation within each segment; 0 in degenerate segments."""
    if values_X.numel() == 0:
        return values_X
    deviation_X = centre(values_X, segment_X, segments)
    count_M = segment_sum(torch.ones_like(values_X), segment_X, segments)
    variance_M = segment_sum(deviation_X**2, segment_X, segments) / (count_M - 1).clamp(min=1)
    flat_M = degenerate(values_X, segment_X, segments)
    inverse_M = torch.where(flat_M, 0.0, torch.where(flat_M, 1.0, variance_M).rsqrt())
    return deviation_X * inverse_M[segment_X]
