"""Which problems of a stage the page shows: of each sort (category, kind, difficulty, verdict) some, all counted.

Invariant: the choice depends on the run alone, not on the order in which it is read: of a sort those whose names have
the smallest digests. Sorts take turns, so that a rare one is shown as well as a common one.
"""

from __future__ import annotations

import hashlib
from bisect import insort
from collections import Counter
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Generic, NamedTuple, TypeVar

from pipeline.records import Probe, Verdict

R = TypeVar("R")

OF_A_SORT = 12
DIFFICULTIES = ("never right", "right up to 1 in 4", "up to 1 in 2", "up to 3 in 4", "nearly always right", "not asked")
SOLVED, UNSOLVED, NOT_ASKED = "solved above chance", "solved by nobody above chance", "not asked"


class Sort(NamedTuple):
    category: str
    kind: str
    """Of the answer."""
    difficulty: str
    solved: str
    verdict: str


def sort_of(category: str, kind: str, verdict: Verdict | None, probe: Probe | None) -> Sort:
    decision = verdict.decision if verdict else "not judged"
    if probe is None:
        return Sort(category, kind, DIFFICULTIES[-1], NOT_ASKED, decision)
    quarter = 0 if not probe.correct else min(4, 1 + int(4 * probe.rate - 1e-9))
    return Sort(category, kind, DIFFICULTIES[quarter], SOLVED if probe.solved else UNSOLVED, decision)


@dataclass
class Strata(Generic[R]):
    """Where submitted problems lie, by their sort; `R` says where."""

    counts: Counter[Sort] = field(default_factory=Counter)
    _kept: dict[Sort, list[tuple[str, R]]] = field(default_factory=dict)

    def take(self, sort: Sort, name: str, where: R) -> None:
        """`name` is that of no other problem."""
        self.counts[sort] += 1
        kept = self._kept.setdefault(sort, [])
        insort(kept, (hashlib.sha256(name.encode()).hexdigest(), where), key=lambda one: one[0])
        del kept[OF_A_SORT:]

    def chosen(self, most: int) -> list[tuple[Sort, R]]:
        """At most so many: one of each sort, a second of each, and so on."""
        rounds = zip_longest(*([(sort, where) for _, where in self._kept[sort]] for sort in sorted(self._kept)))
        return [one for turn in rounds for one in turn if one is not None][:most]
