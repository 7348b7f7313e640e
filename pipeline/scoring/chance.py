"""What guessing explains: a problem is solved, and hard, by what its prober does beyond it.

A guess knows the form of the statement and its numbers from some point on. Its chance is the larger one of what the
kind of the answer gives (a choice of n, the numbers that a statement offers to pick from) and of the share that the
commonest answer has among twins: the same statement with other numbers up to some point (`Domain.twins`). "Rows of 7,
keep the rest" is right one time in seven, whatever stands before.

*Solved*: the prober is right so often that a guesser would be with a probability below `significance` (one-sided
binomial test). *Difficulty*: 1 - (rho - c) / (1 - c), with c the Pass@k of a guesser. Where nothing can be guessed both
are the paper's: 1[rho > 0] and 1 - rho.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from math import comb

from pipeline.records import Probe, Problem

_OPTION = re.compile(r"(?m)^\s*\(?([A-J])[).:]\s")
_PAIRS = {"yes", "no", "true", "false", "even", "odd"}
_FEWEST = 8
"""Twins below which their commonest answer says nothing."""


def baseline(problem: Problem, twins: Sequence[Sequence[str]] = ()) -> float:
    """The chance that a guess is right. `twins`: answers of sets of twins, each set with its own numbers kept."""
    return max(of_kind(problem), *(modal_share(answers) for answers in twins), 0.0)


def of_kind(problem: Problem) -> float:
    """What the kind of the answer alone gives."""
    if problem.answer.strip().lower() in _PAIRS:
        return 1 / 2
    if problem.answer_kind != "choice":
        return 0.0
    return 1 / max(2, len(set(_OPTION.findall(problem.question))))


def modal_share(answers: Sequence[str]) -> float:
    """How often another twin has the answer that is the commonest: 0 where all differ."""
    if len(answers) < _FEWEST:
        return 0.0
    ((_, most),) = Counter(answers).most_common(1)
    return (most - 1) / (len(answers) - 1)


def solved(probe: Probe, significance: float) -> bool:
    """The prober is right oftener than guessing explains."""
    return probe.correct > 0 and _tail(probe.n - probe.unknown, probe.correct, probe.chance) <= significance


def _tail(n: int, least: int, p: float) -> float:
    """The probability of `least` and more successes of n."""
    return sum(comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(least, n + 1))


def difficulty(probe: Probe) -> float:
    """1 - Pass@k above chance, in [0, 1]."""
    guessed = 1 - (1 - probe.chance) ** probe.k
    if guessed >= 1:
        return 0.0
    return min(1.0, (1 - probe.pass_at_k) / (1 - guessed))
