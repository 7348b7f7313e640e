"""Groups of answers to train a solver on: asked, judged, and filled up again where they teach nothing.

Invariant: which problems a step asks follows from its first position in the data and from what the groups before were
worth, in the order of the problems: the same answers give the same step. Every completion that was issued is in exactly
one `Group`, or failed in the ledger; `rewarded` gives each its one end.

A group *teaches* if some of its answers are right and some wrong: in any other, every advantage is zero. With `refill`
(dynamic sampling, as in DAPO) such groups are left out, and further problems are asked until there are as many that
teach as the step wants, or the allowance is spent. If none teaches, the step is trained on what there is, which
has no gradient of its own (with `kl`: but the KL's) and keeps the step its number.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from actors.answers.values import Judgement
from actors.solver import Completion
from pipeline.flow.steps import Row
from pipeline.records import Failure, Problem
from pipeline.store.ledger import End, Key

_LEAST_SHARE = 0.25
"""A round of refilling asks as many more groups as would be missing if at least so many of them teach."""


@dataclass(frozen=True)
class Group:
    """The answers to one problem, or why there are none."""

    problem: Problem
    completions: tuple[Completion, ...] = ()
    judged: tuple[Judgement, ...] = ()
    failure: Failure | None = None

    def counted(self, masks: bool) -> list[tuple[Completion, bool]]:
        """(completion, right) of those that are trained on: none that could not be judged and, where that `masks`, none
        that was cut off; none at all where one is left, for a group of one has no advantage."""
        found = [
            (c, outcome == "equal")
            for c, outcome in zip(self.completions, self.judged, strict=True)
            if outcome != "unknown" and not (masks and c.truncated)
        ]
        return found if len(found) > 1 else []

    def teaches(self, masks: bool) -> bool:
        return len({right for _, right in self.counted(masks)}) == 2


Ask = Callable[[Sequence[int]], Awaitable[list[Group]]]
"""Positions in the data -> their groups, in the same order."""


async def filled(ask: Ask, first: int, size: int, refill: float, masks: bool) -> list[Group]:
    """The groups of a step that begins at position `first`: `size` of them, and at most `refill` times as many more
    until `size` of them teach."""
    groups = await ask(range(first, first + size))
    most = size + int(size * refill)
    while len(groups) < most and (missing := size - sum(g.teaches(masks) for g in groups)) > 0:
        share = max(_LEAST_SHARE, 1 - missing / size)
        more = min(most - len(groups), math.ceil(missing / share))
        groups += await ask(range(first + len(groups), first + len(groups) + more))
    return groups


def rewarded(groups: Sequence[Group], refill: float, masks: bool) -> tuple[list[Row], dict[Key, End]]:
    """What is trained on, and the end of each completion."""
    chosen = [g for g in groups if g.teaches(masks)] if refill else []
    trained = {(c.episode_id, c.attempt): float(right) for g in chosen or groups for c, right in g.counted(masks)}
    ends: dict[Key, End] = {}
    for group in groups:
        for c, outcome in zip(group.completions, group.judged, strict=True):
            key = (c.episode_id, c.attempt)
            ends[key] = "failed" if outcome == "unknown" else "trained" if key in trained else "filtered"
    return [(key, [0.0], reward) for key, reward in trained.items()], ends
