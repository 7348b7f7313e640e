"""How many rows of a data set are of each kind, where shares of it were asked for.

Invariant: the places of all kinds together are the target, whatever the shares; a kind that has a share has its places
and no other, kinds without one have what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from pipeline.config import SynthesizeStage
from pipeline.scoring.judged import Judged

K = TypeVar("K")


def places(target: int, shares: Mapping[K, float]) -> dict[K | None, int]:
    """Kind -> rows; None: of all that have no share."""
    found: dict[K | None, int] = {}
    sum_of_shares = 0.0
    for kind, share in shares.items():
        before, sum_of_shares = round(target * min(sum_of_shares, 1.0)), sum_of_shares + share
        found[kind] = round(target * min(sum_of_shares, 1.0)) - before
    return found | {None: target - sum(found.values())}


@dataclass
class Shares(Generic[K]):
    """The places that are left."""

    kind_of: Callable[[Judged], K | None]
    """None: one that has no share."""
    left: dict[K | None, int]
    told: str
    """Why one is left out that finds no place."""

    def full(self, judged: Judged) -> bool:
        return self.left[self.kind_of(judged)] == 0

    def give(self, judged: Judged) -> None:
        self.left[self.kind_of(judged)] -= 1


def shares_of(config: SynthesizeStage) -> list[Shares[int] | Shares[str]]:
    """What the config asks for."""
    found: list[Shares[int] | Shares[str]] = []
    if bands := config.difficulty:

        def band(judged: Judged) -> int | None:
            rho = judged.probe.rho if judged.probe else 1.0
            return next((i for i, one in enumerate(bands) if one.holds(rho)), None)

        wanted = {i: one.share for i, one in enumerate(bands)}
        found.append(Shares(band, places(config.target, wanted), "beyond the share of their difficulty"))
    if categories := config.categories:

        def category(judged: Judged) -> str | None:
            return name if (name := judged.episode.task.category) in categories else None

        found.append(Shares(category, places(config.target, categories), "beyond the share of their category"))
    return found
