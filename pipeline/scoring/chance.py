"""What guessing explains: a problem is solved, and hard, by what its prober does beyond it.

A guess knows the form of the statement. Its chance is the largest one of what the kind of the answer gives (one of n
choices), and of two shares among twins, the same statement with other numbers (`Domain.twins`): of the commonest answer
("rows of 7, keep the rest" is right one time in seven, whatever stands before), and of the twins whose answer is the
number at one place of their statement ("keep the larger of it and 9999").

*Solved*: the prober is right so often that a guesser would be with a probability below `significance` (one-sided
binomial test). *Difficulty*: 1 - (rho - c) / (1 - c), with c the rho of a guesser: his rate, or his Pass@k. Where
nothing can be guessed, or `significance` is 1, both are the paper's: 1[rho > 0] and 1 - rho.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from math import comb

from actors.answers.words import options
from pipeline.config import RewardConfig
from pipeline.records import Probe, Problem

_PAIRS = {"yes", "no", "true", "false", "even", "odd"}
_FEWEST = 8
"""Twins below which their commonest answer says nothing."""


def baseline(problem: Problem, twins: Sequence[tuple[str, str]] = ()) -> float:
    """The chance that a guess is right. `twins`: questions with their answers."""
    return max(of_kind(problem), modal_share([answer for _, answer in twins]), copied_share(twins))


def of_kind(problem: Problem) -> float:
    """What the kind of the answer alone gives."""
    if problem.answer.strip().lower() in _PAIRS:
        return 1 / 2
    if problem.answer_kind != "choice":
        return 0.0
    return 1 / max(2, len(options(problem.question)[1]))


def modal_share(answers: Sequence[str]) -> float:
    """How often another twin has the answer that is the commonest: 0 where all differ."""
    if len(answers) < _FEWEST:
        return 0.0
    ((_, most),) = Counter(answers).most_common(1)
    return (most - 1) / (len(answers) - 1)


def copied_share(twins: Sequence[tuple[str, str]]) -> float:
    """How often the answer is the number at one place of the statement, at the best place."""
    if len(twins) < _FEWEST:
        return 0.0
    places = Counter(i for question, answer in twins for i, n in enumerate(re.findall(r"\d+", question)) if n == answer)
    return max(places.values(), default=0) / len(twins)


def measured(probe: Probe, chance: float, reward: RewardConfig) -> Probe:
    """The probe as the reward reads it, held against this chance; against none where `significance` is 1, as the paper
    does."""
    chance = 0.0 if reward.significance == 1 else chance
    above = probe.correct >= enough(probe.n - probe.unknown, chance, reward)
    return probe.model_copy(update={"chance": chance, "above_chance": above, "reading": reward.rho})


def enough(n: int, chance: float, reward: RewardConfig) -> int:
    """Right samples of n from which on the problem is solved; n + 1 where all of them are not enough. Of fewer than n
    samples that many are enough, too."""
    chance = 0.0 if reward.significance == 1 else chance
    return next((c for c in range(1, n + 1) if _tail(n, c, chance) <= reward.significance), n + 1)


def _tail(n: int, least: int, p: float) -> float:
    """The probability of `least` and more successes of n."""
    return sum(comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(least, n + 1))


def difficulty(probe: Probe) -> float:
    """1 - rho above chance, in [0, 1]."""
    guessed = probe.chance if probe.reading == "rate" else 1 - (1 - probe.chance) ** probe.k
    if guessed >= 1:
        return 0.0
    return min(1.0, (1 - probe.rho) / (1 - guessed))
