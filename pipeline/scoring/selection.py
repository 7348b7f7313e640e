"""What becomes a row of the data set: an accepted problem that is no copy, no held-out combination and in no other data
set, passes the gates of its text, and is solved.

Invariant: judged episodes are taken in the order of their tasks; every accepted one ends in exactly one of `chosen`,
`unsolved` and `left_out`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.domains.base import Domain
from pipeline.scoring.identity import Register
from pipeline.scoring.judged import Judged
from pipeline.scoring.quality import Gate, bar
from pipeline.scoring.summary import copies
from pipeline.store.ledger import Key


@dataclass
class Selection:
    domain: Domain
    seen: Register
    """What the stages before have written, too."""
    foreign: Callable[[Sequence[str]], Mapping[int, str]] = lambda questions: {}
    """Of some questions, those that other data sets have: place -> whose."""
    chosen: list[Judged] = field(default_factory=list)
    unsolved: list[Judged] = field(default_factory=list)
    """Valid, and nobody solves them above chance: no rows until a stronger prober does."""
    left_out: Counter[str] = field(default_factory=Counter)
    taken: int = 0
    solved: int = 0
    """Episodes taken; those of them that a prober solves, copies and all."""

    def take(self, judged: Iterable[Judged]) -> Collection[Key]:
        """Choose among these; returns those that are copies."""
        judged = list(judged)
        self.taken += len(judged)
        self.solved += sum(j.solved for j in judged)
        copied = copies(judged, self.seen)
        asked = [(j.key, j.problem.question) for j in judged if j.accepted and j.problem]
        foreign = {asked[i][0]: whose for i, whose in self.foreign([question for _, question in asked]).items()}
        for j in judged:
            if not j.accepted:
                continue
            if j.key in copied:
                self.left_out["copies"] += 1
            elif self.domain.is_heldout(j.used):
                self.left_out["held-out combinations"] += 1
            elif (whose := foreign.get(j.key)) is not None:
                self.left_out[whose] += 1
            elif (barred := _barred(j)) is not None:
                self.left_out[barred.name] += 1
            elif not j.solved:
                self.unsolved.append(j)
            else:
                self.chosen.append(j)
        return copied


def _barred(j: Judged) -> Gate | None:
    assert j.problem is not None
    return bar(j.problem.question, j.problem.answer, j.problem.answer_kind)
