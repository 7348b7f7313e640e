"""What becomes a row of the data set: an accepted problem that is no copy, no held-out combination and in no other data
set, passes the gates of its text, is solved, and finds a place among those of its kind.

Invariant: judged episodes are taken in the order of their tasks; every accepted one ends in exactly one of `chosen`,
`unsolved` and `left_out`. Unfiltered, every submitted one does, and neither votes nor difficulty nor the gates of its
text decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.domains.base import Domain
from pipeline.scoring.identity import Register
from pipeline.scoring.judged import Judged
from pipeline.scoring.quality import Gate, bar
from pipeline.scoring.shares import Shares
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
    shares: Sequence[Shares[Any]] = ()
    """Rows of each kind, where they were asked for."""
    never_solved: bool = False
    """Whether what nobody solves may be chosen, too."""
    always_solved: bool = True
    """Whether what is solved every time may be."""
    unfiltered: bool = False
    """Whatever was handed in may be chosen: the baseline that nobody checks."""
    tokens: int = 0
    """Sampled for what was taken, by the proposer and the probers."""
    episodes: int = 0
    """Taken."""

    def eligible(self, j: Judged) -> bool:
        """Whether it may be chosen, as far as the episode itself tells."""
        return j.episode.submitted is not None and not j.failed if self.unfiltered else j.accepted

    def promises(self, j: Judged) -> bool:
        """Whether it is expected to be chosen, before it is held against others."""
        return self.eligible(j) and (self.unfiltered or j.solved)

    def take(self, judged: Iterable[Judged]) -> Collection[Key]:
        """Choose among these; returns those that are copies."""
        judged = list(judged)
        self.tokens += sum(map(tokens_of, judged))
        self.episodes += len(judged)
        copied = copies(judged, self.seen, self.eligible)
        asked = [(j.key, j.problem.question) for j in judged if self.eligible(j) and j.problem]
        foreign = {asked[i][0]: whose for i, whose in self.foreign([question for _, question in asked]).items()}
        for j in judged:
            if not self.eligible(j):
                continue
            if j.key in copied:
                self.left_out["copies"] += 1
            elif self.domain.is_heldout(j.used):
                self.left_out["held-out combinations"] += 1
            elif (whose := foreign.get(j.key)) is not None:
                self.left_out[whose] += 1
            elif self.unfiltered:
                self._choose(j)
            elif (barred := _barred(j)) is not None:
                self.left_out[barred.name] += 1
            elif not (j.solved or self.never_solved):
                self.unsolved.append(j)
            elif not self.always_solved and j.probe is not None and j.probe.rho == 1:
                self.left_out["solved every time"] += 1
            else:
                self._choose(j)
        return copied

    def _choose(self, j: Judged) -> None:
        """A row, where there is a place for one of its kind."""
        if (full := next((shares for shares in self.shares if shares.full(j)), None)) is not None:
            self.left_out[full.told] += 1
            return
        for shares in self.shares:
            shares.give(j)
        self.chosen.append(j)


def tokens_of(j: Judged) -> int:
    probed = 0 if j.probe is None else j.probe.tokens + sum(weaker.tokens for weaker in j.probe.weaker)
    return j.episode.sampled_tokens + probed


def _barred(j: Judged) -> Gate | None:
    assert j.problem is not None
    return bar(j.problem.question, j.problem.answer, j.problem.answer_kind)
