"""Simulated learners for the curriculum: what a proposer might be like, without a model.

A learner succeeds at a category with probability `most / (1 + exp(-strength))`. A group of episodes teaches it in
proportion to the variance of its outcome, p (1 - p), as an advantage within the group does; so what it never or always
does teaches it nothing. The kinds differ in what else happens.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass

from pipeline.config import CurriculumConfig
from pipeline.records import Skill
from pipeline.skills.curriculum import Curriculum

STARTS = {"easy": 1.5, "fair": 0.0, "hard": -2.5, "rare": -3.0}
"""Category -> strength before the first group."""
GROUP = 8


@dataclass(frozen=True)
class Kind:
    rate: float = 0.15
    """Strength that a group teaches, times 4 p (1 - p)."""
    forgets: float = 0.0
    """Strength that each category loses in each group that is of another one, down to where it began."""
    transfers: float = 0.0
    """Share of what a group teaches that the other categories gain, too."""
    wrong: float = 0.0
    """Share of verdicts that say the opposite of the truth."""
    most: tuple[tuple[str, float], ...] = ()
    """Categories that are never done better than this."""


KINDS = {
    "steady": Kind(),
    "forgetful": Kind(forgets=0.02),
    "transferring": Kind(transfers=0.3),
    "misjudged": Kind(wrong=0.1),
    "slow": Kind(rate=0.06),
    "capped": Kind(most=(("rare", 0.05),)),
}


class Learner:
    def __init__(self, kind: Kind):
        self._kind, self._strength = kind, dict(STARTS)

    def rate(self, category: str) -> float:
        return dict(self._kind.most).get(category, 1.0) / (1 + math.exp(-self._strength[category]))

    def group(self, category: str, rng: random.Random) -> int:
        """Plays one; returns how many of its episodes are said to have succeeded."""
        p = self.rate(category)
        said = sum((rng.random() < p) != (rng.random() < self._kind.wrong) for _ in range(GROUP))
        gained = self._kind.rate * 4 * p * (1 - p)
        for other in self._strength:
            if other == category:
                self._strength[other] += gained
            else:
                more = self._kind.transfers * gained - self._kind.forgets
                self._strength[other] = max(self._strength[other] + more, STARTS[other])
        return said


@dataclass(frozen=True)
class Course:
    weakest_share: float
    """Of all groups, those of the category that was weakest when they were drawn."""
    weakest: float
    """Success rate of the weakest category at the end."""
    mean: float
    """Over the categories, at the end."""
    shares: dict[str, float]


def course(kind: Kind, seed: int, groups: int, uniform: bool) -> Course:
    """A learner taught in so many groups, of categories that the curriculum draws, or each as likely as any other."""
    skills = [
        Skill(id=f"{c}_{n}", category=c, intent="", method="", difficulty="", tool_hint="", score=1, source="test")
        for c in STARTS
        for n in range(4)
    ]
    curriculum, learner, rng = Curriculum(skills, CurriculumConfig()), Learner(kind), random.Random(seed)
    drawn: Counter[str] = Counter()
    weakest = 0
    for _ in range(groups):
        category, chosen = curriculum.sample(rng)
        if uniform:
            category = rng.choice(sorted(STARTS))
            chosen = tuple(skill for skill in skills if skill.category == category)[:2]
        weakest += category == min(STARTS, key=learner.rate)
        drawn[category] += 1
        won = learner.group(category, rng)
        curriculum.update(category, {skill.id: (won, GROUP - won) for skill in chosen}, won, GROUP)
    rates = {c: learner.rate(c) for c in STARTS}
    shares = {c: drawn[c] / groups for c in STARTS}
    return Course(weakest / groups, min(rates.values()), sum(rates.values()) / len(rates), shares)
