"""Whether the answer of a problem depends on all that it does.

Invariant: pure, and seeded by the problem itself. A step does not matter if it can be left out, alone or together with
others, without changing the answer for (nearly) any of many numbers at the start for which the whole problem holds.
The generator writes problems without such steps; the committee finds them out by means of its own, with which this
module shares no code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, islice
from random import Random

from pipeline.domains.mini.rules.base import CAP, Contradiction, Rule, Value

Part = tuple[Rule, tuple[int, ...]]
"""A sentence: its rule and its numbers."""

SAMPLES, TRIES = 24, 120
GLANCE = 5
"""Samples that show most problems without substance to be so."""
MATTERS = 2
"""A sound problem's answer must change in so many of the samples, which is more than the one that the committee asks
for: two samples of one problem need not agree on a rare case."""

_FACTORS = ("distance", "mass", "fuel")

Sample = tuple[tuple[int, ...], object]
"""Numbers of the opening, and the answer."""


def has_substance(parts: Sequence[Part]) -> bool:
    """The answer depends on the numbers at the start and on every step, and no product has a factor of 0 or 1 (which
    no answer can show, because products change the unit as well)."""
    if any(rule.id in _FACTORS and min(args) < 2 for rule, args in parts):
        return False
    samples = _samples(parts)
    few = list(islice(samples, GLANCE))
    return _all_matters(parts, few, 1) and _all_matters(parts, [*few, *samples], MATTERS)


def _all_matters(parts: Sequence[Part], samples: Sequence[Sample], changes: int) -> bool:
    """Whether, in as many samples as `changes` or in all of them, the answer is another one than most often, and
    another one without any of the steps or several together."""
    answers = [answer for _, answer in samples]
    commonest = max(answers.count(a) for a in answers)
    if len(answers) > 2 * changes and len(answers) - commonest < changes:
        return False
    steps = [i for i, (rule, _) in enumerate(parts) if rule.role == "step"]
    return all(
        _matters([part for i, part in enumerate(parts) if i not in dropped], samples, changes)
        for size in range(1, len(steps) + 1)
        for dropped in combinations(steps, size)
    )


def _matters(rest: Sequence[Part], samples: Sequence[Sample], changes: int) -> bool:
    differing = (numbers for numbers, answer in samples if _outcome(rest, numbers) != answer)
    needed = min(changes, len(samples))
    return sum(1 for _ in islice(differing, needed)) == needed


def _samples(parts: Sequence[Part]) -> Iterator[Sample]:
    """Numbers for the opening near the given ones, for which the problem holds, and its answers; the given first."""
    given = parts[0][1]
    rng = Random(repr([(rule.id, args) for rule, args in parts]))
    seen = {given}
    yield given, _outcome(parts, given)
    for _ in range(TRIES):
        if len(seen) == SAMPLES:
            return
        numbers = _near(parts[0], rng)
        if numbers not in seen and (answer := _outcome(parts, numbers)) is not None:
            seen.add(numbers)
            yield numbers, answer


def _near(opening: Part, rng: Random) -> tuple[int, ...]:
    rule, given = opening
    if rule.id != "list":
        return tuple(rng.randint(n // 2, 2 * n + 9) for n in given)
    length = min(9, max(2, len(given) + rng.randint(-1, 1)))
    return tuple(rng.randint(min(given) // 2, 2 * max(given) + 9) for _ in range(length))


def _outcome(parts: Sequence[Part], numbers: tuple[int, ...]) -> object:
    """The answer, with the unit that it is in; None where the problem does not hold."""
    kind, value = "", None
    for rule, args in parts:
        opening = rule.role == "opening"
        if opening != (kind == "") or (not opening and not rule.fits(kind)):
            return None
        try:
            value = _apply(rule, value, numbers if opening else args)
        except Contradiction:
            return None
        if not isinstance(value, str) and max(value if isinstance(value, tuple) else (value,), default=0) > CAP:
            return None
        kind = rule.after(kind)
    return kind, value


def _apply(rule: Rule, value: Value | None, args: tuple[int, ...]) -> Value:
    if rule.id == "list":
        return args
    return rule.value(*args) if value is None else rule.value(value, *args)
