"""The symbolic verifier's reader: the controlled language of the mini world (pipeline/domains/mini/LANGUAGE.md), by
regular expressions.

Invariant: `read` understands exactly the sentences of that page and nothing else; its vocabulary is closed. What it
returns holds names of rules and bounded integers only, no text of the problem, so whatever is built from a `Reading` is
safe to build. Whether the steps fit together (types, units, conditions) is not decided here. The executing verifier
reads with a grammar of its own (`grammar`); the two share nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from pipeline.records import AnswerKind

_DIGITS = "(?:0|[1-9][0-9]{0,3})"
NUMBER = f"({_DIGITS})"
NAME = "(Mia|Tom|Ana|Ben|Eva|Leo|Ida|Max|Zoe|Sam|Lea|Jon)"
THINGS = "(stones|coins|apples|cards|books|shells|stamps|pens|cups|nuts|beads|keys)"
VALUES = f"({_DIGITS}(?:, {_DIGITS}){{0,7}} and {_DIGITS})"
MOST_STEPS = 8
UNITS = {
    "kilometres": "km",
    "metres": "m",
    "grams": "g",
    "milligrams": "mg",
    "kilojoules": "kJ",
    "hours": "h",
    "minutes": "min",
}
UNIT = f"({'|'.join(UNITS)})"

OPENINGS = {
    "has": "{N} has {a} {things}.",
    "list": "A list holds {values}.",
    "distance": "A car moves at {a} km per hour for {a} hours.",
    "mass": "A block of {a} cubic cm weighs {a} g per cubic cm.",
    "duration": "A test runs for {a} days.",
}

STEPS = {
    "add": ("{N} finds {a} more.", "{N} buys {a} more."),
    "subtract": ("{N} gives away {a}.", "{N} loses {a}."),
    "multiply": ("Then {N} has {a} times as many.",),
    "share": (
        "{N} splits them evenly into {a} bags and keeps one bag.",
        "{N} shares them equally among {a} boxes and keeps one box.",
    ),
    "remainder": (
        "{N} packs them in rows of {a} and keeps the rest.",
        "{N} fills boxes of {a} and keeps what is left.",
    ),
    "gcd": ("Take the greatest common divisor with {a}.", "Take the largest number that divides both it and {a}."),
    "lcm": ("Take the least common multiple with {a}.", "Take the smallest number that both it and {a} divide."),
    "digit_sum": ("Add up the digits.", "Take the sum of the digits."),
    "larger": ("Keep the larger of it and {a}.", "If it is below {a}, take {a} instead."),
    "keep_even": ("Keep only the even values.", "Drop every odd value."),
    "keep_above": ("Keep only the values above {a}.",),
    "add_each": ("Add {a} to every value.", "Raise every value by {a}."),
    "list_sum": ("Add up all values.", "Take the sum of the list."),
    "list_max": ("Take the largest value.", "Take the maximum of the list."),
    "list_min": ("Take the smallest value.", "Take the minimum of the list."),
    "count": ("Count the values.", "Take the length of the list."),
    "position": ("Take value number {a}.",),
    "double": ("Double the result.", "Take twice the result."),
    "modulo": ("Take the result modulo {a}.", "Divide the result by {a} and keep the remainder."),
    "km_to_m": ("Convert the distance to metres.", "Express the distance in metres."),
    "g_to_mg": ("Convert the mass to milligrams.", "Express the mass in milligrams."),
    "h_to_min": ("Convert the time to minutes.", "Express the time in minutes."),
    "travel_more": ("Then it moves {a} metres further.", "It goes on for {a} metres."),
    "add_mass": ("Another {a} g are added.", "It gains {a} g."),
    "fuel": ("It needs {a} kJ per km.", "Each km costs {a} kJ."),
    "part": ("Take one of {a} equal parts.", "Divide it into {a} equal parts and take one."),
    "repeat": ("This happens {a} times in total.",),
}

QUESTIONS = {
    "maths_number": ("How many {things} does {N} have now?", "What is the number now?"),
    "parity": ("Is the number now even or odd?",),
    "multiple": ("Is the number now a multiple of {a}?",),
    "code_number": ("What is the final value?",),
    "code_list": ("What is the final list?",),
    "quantity": ("How many {unit} is that?",),
}

CATEGORIES = {"has": "maths", "list": "code", "distance": "science", "mass": "science", "duration": "science"}
SKILL_OPENINGS = ("distance", "mass", "duration")
SKILL_QUESTIONS = ("parity", "multiple")


@dataclass(frozen=True)
class Clause:
    """One sentence: which rule it is, and its numbers (for `list` all its values)."""

    rule: str
    numbers: tuple[int, ...] = ()
    unit: str | None = None


@dataclass(frozen=True)
class Reading:
    opening: Clause
    steps: tuple[Clause, ...]
    question: Clause

    @property
    def clauses(self) -> tuple[Clause, ...]:
        return (self.opening, *self.steps, self.question)

    def skills(self, but: Collection[int] = ()) -> frozenset[str]:
        """The skills of its clauses, but for those with these indexes."""
        counted = [c.rule for i, c in enumerate(self.clauses) if i not in but]
        return frozenset(rule for rule in counted if rule in (*SKILL_OPENINGS, *STEPS, *SKILL_QUESTIONS))

    @property
    def category(self) -> str:
        return CATEGORIES[self.opening.rule]

    @property
    def answer_kind(self) -> AnswerKind:
        """The kind of answer that the question asks for."""
        return "choice" if self.question.rule in ("parity", "multiple") else "math"


@dataclass(frozen=True)
class Unread:
    """Why a text is no problem: the flag, and the sentence that gave it (untrusted text, for the rationale only)."""

    flag: str
    reason: str


@dataclass(frozen=True)
class _Rule:
    role: str
    name: str
    pattern: re.Pattern[str]
    slots: tuple[str, ...]


def _compile(role: str, name: str, template: str) -> _Rule:
    """A wording -> a rule whose groups are the wording's slots, in order."""
    slots = tuple(re.findall(r"\{(\w+)\}", template))
    groups = {"N": NAME, "a": NUMBER, "things": THINGS, "values": VALUES, "unit": UNIT}
    pattern = re.sub(r"\\\{(\w+)\\\}", lambda m: groups[m[1]], re.escape(template))
    return _Rule(role, name, re.compile(pattern), slots)


_RULES = tuple(
    [_compile("opening", name, template) for name, template in OPENINGS.items()]
    + [_compile("step", name, template) for name, wordings in STEPS.items() for template in wordings]
    + [_compile("question", name, template) for name, wordings in QUESTIONS.items() for template in wordings]
)


@dataclass(frozen=True)
class _Sentence:
    role: str
    clause: Clause
    name: str | None
    things: str | None


def _sentence(text: str) -> _Sentence | None:
    """The one rule a sentence matches, or None."""
    for rule in _RULES:
        match = rule.pattern.fullmatch(text)
        if match is None:
            continue
        found: dict[str, list[str]] = {}
        for slot, value in zip(rule.slots, match.groups(), strict=True):
            found.setdefault(slot, []).append(value)
        numbers = tuple(int(v) for v in found.get("a", []))
        if rule.name == "larger":
            if len(set(numbers)) != 1:
                continue  # "If it is below 3, take 5 instead." is not the larger of anything
            numbers = numbers[:1]
        if "values" in found:
            numbers = tuple(int(v) for v in re.split(", | and ", found["values"][0]))
        unit = UNITS[found["unit"][0]] if "unit" in found else None
        return _Sentence(
            rule.role,
            Clause(rule.name, numbers, unit),
            found.get("N", [None])[0],
            found.get("things", [None])[0],
        )
    return None


def read(text: str) -> Reading | Unread:
    """A problem text -> its clauses, or the flag that says why it is none."""
    if not text.strip():
        return Unread("underspecified", "the text is empty")
    sentences: list[_Sentence] = []
    for part in re.split(r"(?<=[.?!]) ", text):
        sentence = _sentence(part)
        if sentence is None:
            return Unread("ambiguous", f"not understood: {part[:80]!r}")
        sentences.append(sentence)

    roles = [s.role for s in sentences]
    if "question" not in roles:
        return Unread("underspecified", "there is no question")
    if roles[0] != "opening":
        return Unread("underspecified", "nothing says what is there at the start")
    if roles.index("question") != len(roles) - 1:
        return Unread("ambiguous", "there is text after the question")
    if "opening" in roles[1:]:
        return Unread("ambiguous", "there is a second opening")
    if roles.count("step") > MOST_STEPS:
        return Unread("ambiguous", f"it has {roles.count('step')} steps, and at most {MOST_STEPS} are read")
    for attribute in ("name", "things"):
        words = {getattr(s, attribute) for s in sentences} - {None}
        if len(words) > 1:
            return Unread("ambiguous", f"it is not said how {' and '.join(sorted(words))} are related")
    opening, *steps, question = (s.clause for s in sentences)
    return Reading(opening, tuple(steps), question)


def leaks(text: str, answer: str) -> bool:
    """A sentence that is not of the language names the answer: "The answer is 12.", "Hint: it is even."."""
    strangers = " ".join(part for part in re.split(r"(?<=[.?!]) ", text) if _sentence(part) is None)
    return bool(answer.strip()) and re.search(rf"(?<!\w){re.escape(answer.strip())}(?!\w)", strangers) is not None
