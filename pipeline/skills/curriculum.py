"""Which skills the proposer is offered next: categories by weakness, skills by what can still be learned from them.

Categories (PAPER, curriculum): m_c <- (1 - alpha) m_c + alpha * success rate, and p(c) is proportional to
1 / (m_c + epsilon), so the proposer cannot hide where it is already good.

Skills inside a category are the arms of a bandit, which the paper names and leaves open. Ours is Thompson sampling:
each skill keeps a fading count of problems that used it and of failures of tasks it was part of, a success rate p is
drawn from that Beta posterior, and skills are drawn without replacement with weight FLOOR + p (1 - p). A group whose
episodes all succeed or all fail has no advantage to learn from, which is why the value of an arm is the variance of its
outcome; an untried skill has a wide posterior; the floor keeps every skill in play, for the sake of diverse data.

Combinations, where the config asks for it, are a second bandit: each pair of skills keeps such counts of the episodes
that were offered both, won where a verified problem uses both, lost where it failed or either was pruned. The skills'
bandit draws some sets of one size, of which one is taken in proportion to the cubes of its pairs' drawn rates,
multiplied.

Invariant: the next task is a function of the state and the caller's random generator alone. No Ray, no clock.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from pipeline import config as configs
from pipeline.records import Failure, Skill

FLOOR = 0.05
"""A fifth of the most that p (1 - p) can be: an arm that teaches nothing weighs a sixth of the best, not zero."""
_TRIES = 1000
_SETS_DRAWN = 32
_SETS = 20_000
"""Of a category, looked at for one that may be offered."""


class Curriculum:
    """The state machine. `excluded` says which skill sets (by id) are held out and must never be offered."""

    def __init__(
        self,
        skills: Sequence[Skill],
        config: configs.CurriculumConfig,
        excluded: Callable[[frozenset[str]], bool] = lambda ids: False,
    ):
        grouped = _by_category(skills)
        left_out = never_offered(skills, config, excluded)
        self._arms = {c: arms for c, arms in grouped.items() if c not in left_out}
        self.too_small = tuple(c for c in left_out if len(grouped[c]) < config.min_skills)
        """Categories with fewer skills than a task needs; they are never offered."""
        self.held_out = tuple(c for c in left_out if c not in self.too_small)
        """Categories of which every skill set is held out; they are never offered either."""
        if not self._arms:
            held_out = f"; of {', '.join(self.held_out)} every set of skills is held out" if self.held_out else ""
            raise Failure(
                f"curriculum: none of {len(grouped)} categories has mgpo.curriculum.min_skills ({config.min_skills}) "
                f"skills to offer{held_out}; lower it, or acquire more skills"
            )
        self._config = config
        self._excluded = excluded
        self._proficiency = dict.fromkeys(self._arms, 0.0)
        self._counts = {s.id: (0.0, 0.0) for arms in self._arms.values() for s in arms}
        self._pairs: dict[str, tuple[float, float]] = {}

    @property
    def proficiency(self) -> dict[str, float]:
        """m_c of each category."""
        return dict(self._proficiency)

    def probabilities(self) -> dict[str, float]:
        """p(c), summing to one."""
        return probabilities(self._proficiency, self._config.epsilon)

    def sample(self, rng: random.Random) -> tuple[str, tuple[Skill, ...]]:
        """A category and the skills K_0 of one task, min_skills to max_skills of them.

        Raises Failure if the category it drew seems to have no skill set that is not held out.
        """
        p = self.probabilities()
        (category,) = rng.choices(list(p), weights=list(p.values()))
        first = self._draw(category, rng)
        if self._config.combinations:
            sets = [first, *(self._draw(category, rng, len(first)) for _ in range(_SETS_DRAWN - 1))]
            weights = [math.prod(self._rate(self._pairs.get(pair), rng) ** 3 for pair in _pairs(s)) for s in sets]
            (chosen,) = rng.choices(sets, weights)
            return category, chosen
        return category, first

    def _draw(self, category: str, rng: random.Random, of: int | None = None) -> tuple[Skill, ...]:
        """`of`: so many skills."""
        arms = self._arms[category]
        for _ in range(_TRIES):
            size = of or rng.randint(self._config.min_skills, min(self._config.max_skills, len(arms)))
            # The largest of u^(1/w) draw without replacement in proportion to the weights w.
            chosen = sorted(arms, key=lambda s: rng.random() ** (1 / self._weight(s.id, rng)), reverse=True)[:size]
            if not self._excluded(frozenset(s.id for s in chosen)):
                return tuple(chosen)
        raise Failure(f"curriculum: {_TRIES} skill sets drawn for the category {category!r} were all held out")

    def update(
        self,
        category: str,
        skills: Mapping[str, tuple[float, float]],
        successes: float,
        total: int,
        used: Sequence[Collection[str]] = (),
    ) -> None:
        """Take in the outcome of a group: `successes` verified problems of `total` judged episodes, and of each skill
        (successes, failures): it has succeeded where a problem uses it, not where it was merely offered. `used`: of
        each of these episodes, the skills of its verified problem, none where it failed.

        Episodes that nobody could judge belong in neither number; a group of none changes nothing.
        """
        if total == 0:
            return
        if not 0 <= successes <= total:
            raise ValueError(f"{successes} successes of {total}")
        keep = 1 - self._config.alpha
        self._proficiency[category] = keep * self._proficiency[category] + self._config.alpha * successes / total
        for skill, (succeeded, failed) in skills.items():
            won, lost = self._counts[skill]
            self._counts[skill] = (keep * won + succeeded, keep * lost + failed)
        if self._config.combinations:
            for one, other in itertools.combinations(sorted(skills), 2):
                together = sum(one in ids and other in ids for ids in used)
                won, lost = self._pairs.get(f"{one} {other}", (0.0, 0.0))
                self._pairs[f"{one} {other}"] = (keep * won + together, keep * lost + len(used) - together)

    def state(self) -> dict[str, Any]:
        """All that `update` has changed, as JSON."""
        counts = {"skills": self._counts} | ({"pairs": self._pairs} if self._config.combinations else {})
        listed = {name: {k: list(v) for k, v in rates.items()} for name, rates in counts.items()}
        return {"proficiency": dict(self._proficiency), **listed}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state()`. Raises Failure if it belongs to another skill library."""
        for name, mine, theirs in (
            ("categories", self._proficiency, state["proficiency"]),
            ("skills", self._counts, state["skills"]),
        ):
            if differing := sorted(set(mine) ^ set(theirs)):
                raise Failure(f"curriculum: the saved state has other {name} than the library: {differing[0]!r}")
        self._proficiency = dict(state["proficiency"])
        self._counts = {k: (won, lost) for k, (won, lost) in state["skills"].items()}
        self._pairs = {k: (won, lost) for k, (won, lost) in state.get("pairs", {}).items()}

    def _weight(self, skill: str, rng: random.Random) -> float:
        p = self._rate(self._counts[skill], rng)
        return FLOOR + p * (1 - p)

    @staticmethod
    def _rate(counts: tuple[float, float] | None, rng: random.Random) -> float:
        """Drawn from what is known of a success rate."""
        won, lost = counts or (0.0, 0.0)
        return rng.betavariate(1 + won, 1 + lost)


def probabilities(proficiency: Mapping[str, float], epsilon: float) -> dict[str, float]:
    """p(c) of each category by its m_c, summing to one."""
    weights = {c: 1 / (m + epsilon) for c, m in proficiency.items()}
    total = sum(weights.values())
    return {c: w / total for c, w in weights.items()}


def never_offered(
    skills: Sequence[Skill],
    config: configs.CurriculumConfig,
    excluded: Callable[[frozenset[str]], bool] = lambda ids: False,
) -> dict[str, str]:
    """Category that no task can come from -> why."""
    found = {}
    for category, arms in _by_category(skills).items():
        if len(arms) < config.min_skills:
            found[category] = f"{len(arms)} skills, fewer than mgpo.curriculum.min_skills ({config.min_skills})"
        elif not _reachable(arms, config, excluded):
            found[category] = "every set of its skills is held out"
    return found


def _by_category(skills: Sequence[Skill]) -> dict[str, list[Skill]]:
    grouped: dict[str, list[Skill]] = {}
    for skill in skills:
        grouped.setdefault(skill.category, []).append(skill)
    return {category: grouped[category] for category in sorted(grouped)}


def _pairs(skills: Sequence[Skill]) -> list[str]:
    return [f"{one} {other}" for one, other in itertools.combinations(sorted(skill.id for skill in skills), 2)]


def _reachable(
    arms: Sequence[Skill], config: configs.CurriculumConfig, excluded: Callable[[frozenset[str]], bool]
) -> bool:
    """Whether some skill set can be offered. A category with more than `_SETS` of them is taken for one that can."""
    sizes = range(config.min_skills, min(config.max_skills, len(arms)) + 1)
    if sum(math.comb(len(arms), size) for size in sizes) > _SETS:
        return True
    names = [skill.id for skill in arms]
    return not all(excluded(frozenset(ids)) for size in sizes for ids in itertools.combinations(names, size))
