"""What becomes a row of the data set: an accepted problem that is no copy, no held-out combination and in no other data
set, passes the gates of its text, is solved, and finds a place among those of its kind.

Invariant: judged episodes are taken in the order of their tasks; every accepted one ends in exactly one of `chosen`,
`unsolved` and `left_out`, and the first few that each gate marks are kept as its examples. Unfiltered, every submitted
one does, and neither votes nor difficulty nor the gates of its text decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.domains.base import Domain
from pipeline.scoring.identity import Register
from pipeline.scoring.judged import Judged
from pipeline.scoring.quality import UNUSED, Gate, bar
from pipeline.scoring.shares import Shares
from pipeline.scoring.summary import copies
from pipeline.store.ledger import Key

UNSOLVED = "solved by no prober above chance"
EXAMPLES = 3
"""Kept of each gate."""
_SHOWN = 400
"""Characters of an example's question and answer."""


def unused(j: Judged) -> bool:
    """Whether a skill that was not dropped plays no part in it, by the judges."""
    return bool(set(j.episode.active) - set(j.used))


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
    examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    """Reason of `left_out`, `UNSOLVED` or `UNUSED`, which keeps no row out -> question and answer of the first few."""
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
                self._leave_out(j, "copies")
            elif self.domain.is_heldout(j.used):
                self._leave_out(j, "held-out combinations")
            elif (whose := foreign.get(j.key)) is not None:
                self._leave_out(j, whose)
            elif self.unfiltered:
                self._choose(j)
            elif (barred := _barred(j)) is not None:
                self._leave_out(j, barred.name)
            elif not (j.solved or self.never_solved):
                self.unsolved.append(j)
                self._show(j, UNSOLVED)
            elif not self.always_solved and j.probe is not None and j.probe.rho == 1:
                self._leave_out(j, "solved every time")
            else:
                self._choose(j)
        return copied

    def _choose(self, j: Judged) -> None:
        """A row, where there is a place for one of its kind."""
        if (full := next((shares for shares in self.shares if shares.full(j)), None)) is not None:
            self._leave_out(j, full.told)
            return
        for shares in self.shares:
            shares.give(j)
        self.chosen.append(j)
        if unused(j):
            self._show(j, UNUSED.name)

    def _leave_out(self, j: Judged, why: str) -> None:
        self.left_out[why] += 1
        self._show(j, why)

    def _show(self, j: Judged, gate: str) -> None:
        if j.problem and len(shown := self.examples.setdefault(gate, [])) < EXAMPLES:
            shown.append({"question": j.problem.question[:_SHOWN], "answer": j.problem.answer[:_SHOWN]})


def tokens_of(j: Judged) -> int:
    probed = 0 if j.probe is None else j.probe.tokens + sum(weaker.tokens for weaker in j.probe.weaker)
    return j.episode.sampled_tokens + probed


def _barred(j: Judged) -> Gate | None:
    assert j.problem is not None
    return bar(j.problem.question, j.problem.answer, j.problem.answer_kind)
