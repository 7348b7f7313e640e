"""Sound problems from a set of skills, seeded; and the held-out benchmark.

Invariant: a `Text` that `write` returns satisfies every type and condition of LANGUAGE.md, uses each of the given
skills, has no step that could be left out (`substance`), and is a pure function of its arguments. `read` is the inverse
for texts of this module's own wording; it also reads unsound ones and says at which sentence they break (the scripted
teacher mends its drafts with it).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, combinations
from random import Random
from typing import Any

from pipeline.domains.mini import substance
from pipeline.domains.mini.combinations import feasible, is_heldout, needs
from pipeline.domains.mini.domain import (
    BY_ID,
    CATEGORIES,
    NAMES,
    RULES,
    THINGS,
    skills_in,
)
from pipeline.domains.mini.rules.base import CAP, UNITS, Contradiction, Rule, Value
from pipeline.records import AnswerKind, Failure, Problem

IDLE_TRIES = 5
"""Sets of numbers that are tried for one shape in which some step does not matter."""
LARGEST = 9_999
"""Largest number in the text of a problem."""
STEPS = 8
"""Most steps that a problem of the language may have."""


@dataclass(frozen=True)
class Sentence:
    """One sentence of a problem, before its numbers are worked out."""

    rule: Rule
    wording: int
    args: tuple[int, ...]


@dataclass(frozen=True)
class Text:
    """A problem as sentences, with the chain of values as far as it goes."""

    name: str
    thing: str
    sentences: tuple[Sentence, ...]
    values: tuple[Value, ...]
    """values[i] after sentence i; shorter than `sentences` when sentence len(values) breaks a rule."""
    kinds: tuple[str, ...]
    fault: str = ""
    """Why the chain ends early; empty for a sound problem."""

    @property
    def category(self) -> str:
        return self.sentences[0].rule.category

    @property
    def skills(self) -> frozenset[str]:
        return frozenset(s.rule.id for s in self.sentences if s.rule.skill)

    @property
    def steps(self) -> int:
        return sum(s.rule.role == "step" for s in self.sentences)

    @property
    def has_substance(self) -> bool:
        """Every step matters to the answer."""
        return substance.has_substance([(s.rule, s.args) for s in self.sentences])

    @property
    def question(self) -> str:
        kinds = (*self.kinds, *[self.kinds[-1]] * len(self.sentences))
        return " ".join(self._say(s, kinds[i]) for i, s in enumerate(self.sentences))

    @property
    def answer(self) -> str:
        return show(self.values[-1])

    @property
    def answer_kind(self) -> AnswerKind:
        return "choice" if self.kinds[-1] == "W" else "math"

    @property
    def problem(self) -> Problem:
        return Problem.make(self.question, self.answer, self.answer_kind)

    @property
    def working(self) -> str:
        """The step-by-step solution, ending in \\boxed{}."""
        lines = []
        for i, s in enumerate(self.sentences):
            if s.rule.working:
                x = show(self.values[i - 1]) if i else ""
                slots = {"x": x, "y": show(self.values[i]), "u": self.kinds[i], **_operands(s.args)}
                lines.append(s.rule.working.format(**slots, aside=_aside(s, self.values[i - 1])))
        return "\n".join([*lines, f"\\boxed{{{self.answer}}}"])

    def _say(self, s: Sentence, kind: str) -> str:
        return s.rule.wordings[s.wording].format(
            N=self.name, things=self.thing, unit=UNITS.get(kind, ""), list=_spoken(s.args), **_operands(s.args)
        )


def _aside(s: Sentence, x: Value) -> str:
    """What the working shows besides operands and result: the remainder asked about, the running totals."""
    if s.rule.id == "multiple" and isinstance(x, int):
        return str(x % s.args[0])
    if s.rule.id == "list_sum" and isinstance(x, tuple):
        return " ".join(str(total) for total in accumulate(x))
    return ""


def show(value: Value) -> str:
    return "[" + ", ".join(map(str, value)) + "]" if isinstance(value, tuple) else str(value)


def _operands(args: Sequence[int]) -> dict[str, int]:
    return dict(zip("ab", args, strict=False))


def _spoken(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:-1])) + f" and {values[-1]}" if len(values) > 1 else ""


def evaluate(name: str, thing: str, sentences: Sequence[Sentence]) -> Text:
    """Work the chain out; it stops at the first sentence whose type or condition does not hold."""
    values: list[Value] = []
    kinds: list[str] = []
    fault = ""
    for s in sentences:
        opening = s.rule.role == "opening"
        if opening != (not values) or (not opening and not s.rule.fits(kinds[-1])):
            fault = f"{s.rule.id} does not fit here"
            break
        try:
            values.append(_apply(s, values))
        except Contradiction as e:
            fault = str(e)
            break
        kinds.append(s.rule.after(kinds[-1] if kinds else ""))
    return Text(name, thing, tuple(sentences), tuple(values), tuple(kinds), fault)


def _apply(s: Sentence, values: Sequence[Value]) -> Value:
    if s.rule.id == "list":
        return tuple(s.args)
    return s.rule.value(*values[-1:], *s.args)


# ---------------------------------------------------------------- order


@cache
def _to_go(ids: frozenset[str], kind: str, missing: frozenset[str]) -> int | None:
    """Fewest further sentences, of the rules `ids`, that use every missing skill and end in a question."""
    layer, seen = {(kind, missing)}, {(kind, missing)}
    rules = [r for r in RULES if r.id in ids and r.role != "opening"]
    length = 0
    while layer:
        length += 1
        new = set()
        for k, m in layer:
            for r in rules:
                if not r.fits(k):
                    continue
                if r.role == "question":
                    if m <= {r.id}:
                        return length
                else:
                    new.add((r.after(k), m - {r.id}))
        layer = new - seen
        seen |= new
    return None


def _rules_for(wanted: frozenset[str]) -> tuple[list[Rule], bool]:
    """The wanted skills, what they need and the scenery, where these suffice for a problem (True); else every rule."""
    category = BY_ID[next(iter(wanted))].category
    every = [r for r in RULES if r.category == category]
    named = wanted.union(*(needs(s) for s in wanted))
    few = [r for r in every if r.id in named or not r.skill]
    ids = frozenset(r.id for r in few)
    enough = any(_to_go(ids, r.gives, wanted - {r.id}) for r in few if r.role == "opening")
    return (few, True) if enough else (every, False)


def order(skills: Iterable[str], rng: Random, extra: int = 0, others: bool = False) -> list[Rule]:
    """A random order of sentences that uses every skill, with up to `extra` sentences more than are needed.

    Skills beyond `skills` come in only with `others`, or where there is no problem without them. Raises Failure where
    no order exists.
    """
    wanted = frozenset(skills)
    if not wanted or not feasible(wanted):
        raise Failure(f"skills {sorted(wanted)}: no problem uses all of them")
    rules, enough = _rules_for(wanted)
    if others:
        rules = [r for r in RULES if r.category == rules[0].category]
    ids = frozenset(r.id for r in rules)

    def moves(roles: tuple[str, ...], kind: str, missing: frozenset[str]) -> list[tuple[Rule, int]]:
        """Rules that may come next, each with the fewest sentences that must follow it."""
        found = []
        for r in rules:
            if r.role in roles and (r.role == "opening" or r.fits(kind)):
                left = missing - {r.id}
                cost = (None if left else 0) if r.role == "question" else _to_go(ids, r.after(kind), left)
                if cost is not None:
                    found.append((r, cost))
        return found

    openings = moves(("opening",), "", wanted)
    budget = min(cost for _, cost in openings) + (extra if enough else 0)
    chosen = [rng.choice([r for r, cost in openings if cost <= budget])]
    kind, missing = chosen[0].gives, wanted - {chosen[0].id}
    while chosen[-1].role != "question":
        budget -= 1
        rule = rng.choice([r for r, cost in moves(("step", "question"), kind, missing) if cost <= budget])
        chosen.append(rule)
        kind, missing = rule.after(kind), missing - {rule.id}
    return chosen


# ---------------------------------------------------------------- numbers

Pick = Callable[[Random, Any, int], tuple[int, ...]]


def _between(*ranges: tuple[int, int]) -> Pick:
    return lambda rng, x, level: (rng.randint(*ranges[level]),)


def _up_to_x(rng: Random, x: int, level: int) -> tuple[int, ...]:
    return (rng.randint(1, max(1, min(x, (20, 60, 300)[level]))),)


def _divisor(rng: Random, x: int, level: int) -> tuple[int, ...]:
    good = [a for a in range(2, (9, 12, 25)[level] + 1) if x and x % a == 0]
    return (rng.choice(good or [1]),)


def _divided(rng: Random, x: int, level: int) -> tuple[int, ...]:
    return (rng.randint(2, max(2, min(x, (9, 12, 25)[level]))),)


def _near(rng: Random, x: int, level: int) -> tuple[int, ...]:
    return (min(LARGEST, rng.randint(max(0, x // 2), x + x // 2 + 3)),)


def _bound(rng: Random, x: tuple[int, ...], level: int) -> tuple[int, ...]:
    return (rng.randint(min(x, default=2), max(max(x, default=9) - 1, min(x, default=2))),)


PICK: dict[str, Pick] = {
    "things": _between((4, 20), (10, 99), (50, 400)),
    "add": _between((2, 20), (5, 60), (20, 300)),
    "subtract": _up_to_x,
    "multiply": _between((2, 4), (2, 6), (3, 12)),
    "share": _divisor,
    "remainder": _divided,
    "gcd": _between((4, 20), (6, 60), (12, 120)),
    "lcm": _between((2, 6), (3, 10), (4, 15)),
    "larger": _near,
    "multiple": _between((2, 5), (2, 9), (3, 12)),
    "list": lambda rng, x, level: tuple(
        rng.randint(1, (20, 50, 99)[level]) for _ in range(rng.randint(*((3, 4), (4, 6), (5, 7))[level]))
    ),
    "keep_above": _bound,
    "add_each": _between((1, 9), (2, 15), (5, 40)),
    "position": lambda rng, x, level: (rng.randint(1, max(1, len(x))),),
    "modulo": _divided,
    "distance": lambda rng, x, level: (rng.choice(((10, 20, 30, 40, 50), range(20, 90), range(30, 130))[level]),
                                       rng.randint(2, (5, 9, 12)[level])),
    "mass": lambda rng, x, level: (rng.randint(*((2, 12), (5, 40), (10, 99))[level]),
                                   rng.randint(2, (5, 9, 20)[level])),
    "duration": _between((2, 5), (2, 9), (3, 20)),
    "travel_more": _between((100, 900), (100, 2000), (100, 9999)),
    "add_mass": _between((2, 20), (5, 60), (20, 300)),
    "fuel": _between((2, 5), (2, 9), (3, 25)),
    "part": _divisor,
    "repeat": _between((2, 4), (2, 6), (3, 12)),
}  # fmt: skip
"""How a sentence's numbers are drawn from the value before it; rules that are absent take none."""


def fill(
    shape: Sequence[Sentence],
    rng: Random,
    level: int,
    name: str = "",
    thing: str = "",
    fixed: int = 0,
    strict: bool = True,
) -> Text | None:
    """Numbers for a shape, or None where the types do not fit or no numbers are found after many tries.

    The first `fixed` sentences keep theirs, later ones where they have some that hold; all others are drawn. Unless
    `strict` there may be steps that do not matter."""
    name, thing = name or rng.choice(NAMES), thing or rng.choice(THINGS)
    if not _well_typed(shape):
        return None
    idle_ones = 0
    for _ in range(60):
        sentences: list[Sentence] = []
        values: list[Value] = []
        for i, s in enumerate(shape):
            drawn = s
            if i >= fixed and s.rule.id in PICK and not (s.args and _holds(s, values)):
                drawn = Sentence(s.rule, s.wording, PICK[s.rule.id](rng, values[-1] if values else None, level))
            if not _holds(drawn, values) or (drawn.args == (1,) and drawn.rule.id in ("share", "part")):
                break
            sentences.append(drawn)
            values.append(_apply(drawn, values))
        else:
            text = evaluate(name, thing, sentences)
            if not strict or text.has_substance:
                return text
            idle_ones += 1
            if idle_ones == IDLE_TRIES:
                return None
    return None


def _well_typed(shape: Sequence[Sentence]) -> bool:
    kind = ""
    for i, s in enumerate(shape):
        if (s.rule.role == "opening") != (i == 0) or (i and not s.rule.fits(kind)):
            return False
        kind = s.rule.after(kind)
    return True


def _holds(s: Sentence, values: Sequence[Value]) -> bool:
    try:
        value = _apply(s, values)
    except Contradiction:
        return False
    return max(value, default=0) <= CAP if isinstance(value, tuple) else isinstance(value, str) or value <= CAP


def write(skills: Iterable[str], rng: Random, level: int = 1, extra: int = 0, strict: bool = True) -> Text:
    """A sound problem that uses every skill, on the same side of the held-out split as they are.

    Raises Failure where none exists (or no numbers are found). A few sets of skills need others between them for each
    step to matter (`parity` asks nothing of what `gcd` gives); it need not unless `strict`.
    """
    wanted = frozenset(skills)
    for i in range(100 if not strict else 28):
        alone = i < 10 or not strict
        rules = order(wanted, rng, extra if alone else extra + 2, others=not alone)
        shape = [Sentence(r, rng.randrange(len(r.wordings)), ()) for r in rules]
        text = fill(shape, rng, level, strict=strict)
        if text is not None and is_heldout(text.skills) == is_heldout(wanted):
            return text
    raise Failure(f"skills {sorted(wanted)}: found no numbers that satisfy them all")


def draft(skills: Iterable[str], rng: Random, level: int = 1, extra: int = 0) -> Text:
    """As `write`; where it finds no numbers, a text with steps that need not matter."""
    try:
        return write(skills, rng, level, extra)
    except Failure:
        return write(skills, rng, level, extra, strict=False)


# ---------------------------------------------------------------- reading own texts


def _pattern(wording: str) -> re.Pattern[str]:
    slots = {
        "N": r"[A-Z][a-z]+",
        "a": r"\d+",
        "b": r"\d+",
        "things": r"[a-z]+",
        "unit": r"[a-z]+",
        "list": r"[\d, and]+",
    }
    pattern = ""
    for i, part in enumerate(re.split(r"\{(\w+)\}", wording)):
        again = f"(?P<{part}>" in pattern
        pattern += re.escape(part) if i % 2 == 0 else f"(?P={part})" if again else f"(?P<{part}>{slots[part]})"
    return re.compile(pattern)


_PATTERNS = [(rule, i, _pattern(w)) for rule in RULES for i, w in enumerate(rule.wordings)]


def read(question: str) -> Text | None:
    """The inverse of `Text.question`, sound or not; None where a sentence is not of this module's wording."""
    name = thing = ""
    sentences = []
    for part in re.split(r"(?<=[.?]) ", question.strip()):
        found = next(((rule, i, m) for rule, i, p in _PATTERNS if (m := p.fullmatch(part))), None)
        if found is None:
            return None
        rule, wording, match = found
        slots = match.groupdict()
        name, thing = slots.get("N") or name, slots.get("things") or thing
        numbers = slots["list"] if "list" in slots else " ".join(slots.get(k) or "" for k in "ab")
        sentences.append(Sentence(rule, wording, tuple(int(n) for n in re.findall(r"\d+", numbers))))
    text = evaluate(name, thing, sentences)
    return text if text.kinds else None


# ---------------------------------------------------------------- combinations and the benchmark


@cache
def combinations_of(category: str, heldout: bool, largest: int = 5) -> tuple[frozenset[str], ...]:
    """Every feasible combination of 1 to `largest` skills of a category on one side of the split, in a fixed order."""
    every = (frozenset(c) for n in range(1, largest + 1) for c in combinations(sorted(skills_in(category)), n))
    return tuple(c for c in every if feasible(c) and is_heldout(c) == heldout)


def heldout_benchmark(n: int, seed: int) -> list[dict[str, Any]]:
    """n distinct problems {question, answer, category, steps} that use held-out combinations only; 1 to 4 steps in
    turn, categories in turn where one has such a problem (no code problem of one step is held out)."""
    rng = Random(f"heldout {seed}")
    rows: dict[str, dict[str, Any]] = {}
    turn = 0
    while len(rows) < n:
        steps = 1 + turn // len(CATEGORIES) % 4
        category = CATEGORIES[turn % len(CATEGORIES)]
        turn += 1
        pool = [c for c in combinations_of(category, True) if len(c) <= steps + 2]
        for _ in range(200):
            text = draft(rng.choice(pool), rng, level=rng.choice((0, 1, 1, 2)), extra=rng.randrange(2))
            if text.steps == steps and text.question not in rows and text.has_substance:
                rows[text.question] = {
                    "question": text.question, "answer": text.answer, "answer_kind": text.answer_kind,
                    "category": category, "steps": steps,
                }  # fmt: skip
                break
    return list(rows.values())
