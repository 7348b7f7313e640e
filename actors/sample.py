"""One turn as an engine sampled it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One sampled turn. The three lists are of equal length; a turn that ended by itself keeps its end token."""

    text: str
    token_ids: list[int]
    logprobs: list[float]
    versions: list[int]
    truncated: bool
