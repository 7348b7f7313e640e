"""The mini world as data: every opening, step and question of LANGUAGE.md.

Invariant: a `Rule` is the only place that knows a sentence's wording, type and value. Conditions on numbers are raised
as `Contradiction` by the rule's own `value`.

A type is "N" (number), "L" (list), "W" (word), a unit such as "km", or "Q" (any unit, in `takes` only). Values are
int, tuple of int (lists) or str (words); units live in the type.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

CATEGORIES = ("maths", "code", "science")
UNITS = {
    "km": "kilometres", "m": "metres", "g": "grams", "mg": "milligrams",
    "kJ": "kilojoules", "h": "hours", "min": "minutes",
}  # fmt: skip
NAMES = ("Mia", "Tom", "Ana", "Ben", "Eva", "Leo", "Ida", "Max", "Zoe", "Sam", "Lea", "Jon")
THINGS = ("stones", "coins", "apples", "cards", "books", "shells", "stamps", "pens", "cups", "nuts", "beads", "keys")

Value = int | tuple[int, ...] | str


class Contradiction(ValueError):
    """A condition of the language fails for these numbers."""


@dataclass(frozen=True)
class Rule:
    """One row of LANGUAGE.md. `skill` is False for openings and questions that anyone may use."""

    id: str
    category: str
    role: Literal["opening", "step", "question"]
    takes: str
    gives: str
    """Type afterwards; "" keeps it."""
    wordings: tuple[str, ...]
    value: Callable[..., Value]
    """(x, *operands) -> new value; openings take operands only. Raises Contradiction."""
    plain: str
    """The value as a Python expression in {x} and {a}, {b}, for code that has no skill script at hand."""
    working: str
    """The line a solver writes, in {x}, {a}, {b}, the new value {y}, its unit {u} and an aside."""
    skill: bool = True

    @property
    def operands(self) -> int:
        """Operands the sentence takes (a list opening takes any number of them)."""
        return len(set(re.findall(r"\{([ab])\}", self.wordings[0])))

    def fits(self, kind: str) -> bool:
        return self.takes == kind or (self.takes == "Q" and kind in UNITS)

    def after(self, kind: str) -> str:
        return self.gives or kind


def _ensure(holds: bool, complaint: str) -> None:
    if not holds:
        raise Contradiction(complaint)


def _add(x: int, a: int) -> int:
    return x + a


def _subtract(x: int, a: int) -> int:
    _ensure(a <= x, f"subtract: only {x} are there")
    return x - a


def _times(x: int, a: int) -> int:
    _ensure(a >= 1, "the factor must be 1 or more")
    return x * a


def _divide(x: int, a: int) -> int:
    _ensure(a >= 1 and x % a == 0, f"{x} is not a multiple of {a}")
    return x // a


def _mod(x: int, a: int) -> int:
    _ensure(a >= 2, "the divisor must be 2 or more")
    return x % a


def _gcd(x: int, a: int) -> int:
    _ensure(x >= 1 and a >= 1, "gcd: both numbers must be 1 or more")
    return math.gcd(x, a)


def _lcm(x: int, a: int) -> int:
    _ensure(x >= 1 and a >= 1, "lcm: both numbers must be 1 or more")
    return math.lcm(x, a)


def _digit_sum(x: int) -> int:
    return sum(int(d) for d in str(x))


def _extreme(of: Callable[[tuple[int, ...]], int]) -> Callable[[tuple[int, ...]], int]:
    def value(x: tuple[int, ...]) -> int:
        _ensure(len(x) > 0, "the list is empty")
        return of(x)

    return value


def _position(x: tuple[int, ...], a: int) -> int:
    _ensure(1 <= a <= len(x), f"position: the list has {len(x)} values")
    return x[a - 1]


def _multiple(x: int, a: int) -> str:
    _ensure(a >= 2, "multiple: the divisor must be 2 or more")
    return "no" if x % a else "yes"


def _same(x: Value) -> Value:
    return x


# ---------------------------------------------------------------- the table

RULES: tuple[Rule, ...] = (
    # maths
    Rule("things", "maths", "opening", "", "N", ("{N} has {a} {things}.",), _same, "{a}", "", skill=False),
    Rule(
        "add",
        "maths",
        "step",
        "N",
        "N",
        ("{N} finds {a} more.", "{N} buys {a} more."),
        _add,
        "{x} + {a}",
        "{x} + {a} = {y}",
    ),
    Rule(
        "subtract",
        "maths",
        "step",
        "N",
        "N",
        ("{N} gives away {a}.", "{N} loses {a}."),
        _subtract,
        "{x} - {a}",
        "{x} - {a} = {y}",
    ),
    Rule(
        "multiply",
        "maths",
        "step",
        "N",
        "N",
        ("Then {N} has {a} times as many.", "The amount grows {a} times."),
        _times,
        "{x} * {a}",
        "{x} * {a} = {y}",
    ),
    Rule(
        "share",
        "maths",
        "step",
        "N",
        "N",
        (
            "{N} splits them evenly into {a} bags and keeps one bag.",
            "{N} shares them equally among {a} boxes and keeps one box.",
        ),
        _divide,
        "{x} // {a}",
        "{x} / {a} = {y}",
    ),
    Rule(
        "remainder",
        "maths",
        "step",
        "N",
        "N",
        ("{N} packs them in rows of {a} and keeps the rest.", "{N} fills boxes of {a} and keeps what is left."),
        _mod,
        "{x} % {a}",
        "{x} mod {a} = {y}",
    ),
    Rule(
        "gcd",
        "maths",
        "step",
        "N",
        "N",
        ("Take the greatest common divisor with {a}.", "Take the largest number that divides both it and {a}."),
        _gcd,
        "math.gcd({x}, {a})",
        "gcd({x}, {a}) = {y}",
    ),
    Rule(
        "lcm",
        "maths",
        "step",
        "N",
        "N",
        ("Take the least common multiple with {a}.", "Take the smallest number that both it and {a} divide."),
        _lcm,
        "math.lcm({x}, {a})",
        "lcm({x}, {a}) = {y}",
    ),
    Rule(
        "digit_sum",
        "maths",
        "step",
        "N",
        "N",
        ("Add up the digits.", "Take the sum of the digits."),
        _digit_sum,
        "sum(map(int, str({x})))",
        "digits {x} = {y}",
    ),
    Rule(
        "larger",
        "maths",
        "step",
        "N",
        "N",
        ("Keep the larger of it and {a}.", "If it is below {a}, take {a} instead."),
        max,
        "max({x}, {a})",
        "max({x}, {a}) = {y}",
    ),
    Rule(
        "parity",
        "maths",
        "question",
        "N",
        "W",
        ("Is the number now even or odd?",),
        lambda x: "odd" if x % 2 else "even",
        "'odd' if {x} % 2 else 'even'",
        "{x} is {y}",
    ),
    Rule(
        "multiple",
        "maths",
        "question",
        "N",
        "W",
        ("Is the number now a multiple of {a}?",),
        _multiple,
        "'no' if {x} % {a} else 'yes'",
        "{x} mod {a} = {aside}",
    ),
    Rule(
        "how_many",
        "maths",
        "question",
        "N",
        "N",
        ("How many {things} does {N} have now?", "What is the number now?"),
        _same,
        "{x}",
        "",
        skill=False,
    ),
    # code
    Rule("list", "code", "opening", "", "L", ("A list holds {list}.",), _same, "{list}", "", skill=False),
    Rule(
        "keep_even",
        "code",
        "step",
        "L",
        "L",
        ("Keep only the even values.", "Drop every odd value."),
        lambda x: tuple(v for v in x if v % 2 == 0),
        "[v for v in {x} if v % 2 == 0]",
        "even {x} = {y}",
    ),
    Rule(
        "keep_above",
        "code",
        "step",
        "L",
        "L",
        ("Keep only the values above {a}.", "Drop every value up to {a}."),
        lambda x, a: tuple(v for v in x if v > a),
        "[v for v in {x} if v > {a}]",
        "above {a} {x} = {y}",
    ),
    Rule(
        "add_each",
        "code",
        "step",
        "L",
        "L",
        ("Add {a} to every value.", "Raise every value by {a}."),
        lambda x, a: tuple(v + a for v in x),
        "[v + {a} for v in {x}]",
        "{x} + {a} = {y}",
    ),
    Rule(
        "list_sum",
        "code",
        "step",
        "L",
        "N",
        ("Add up all values.", "Take the sum of the list."),
        sum,
        "sum({x})",
        "sum {x}: {aside} = {y}",
    ),
    Rule(
        "list_max",
        "code",
        "step",
        "L",
        "N",
        ("Take the largest value.", "Take the maximum of the list."),
        _extreme(max),
        "max({x})",
        "max {x} = {y}",
    ),
    Rule(
        "list_min",
        "code",
        "step",
        "L",
        "N",
        ("Take the smallest value.", "Take the minimum of the list."),
        _extreme(min),
        "min({x})",
        "min {x} = {y}",
    ),
    Rule(
        "count",
        "code",
        "step",
        "L",
        "N",
        ("Count the values.", "Take the length of the list."),
        len,
        "len({x})",
        "count {x} = {y}",
    ),
    Rule(
        "position",
        "code",
        "step",
        "L",
        "N",
        ("Take the value at position {a}.", "Take value number {a}."),
        _position,
        "{x}[{a} - 1]",
        "{x} at {a} = {y}",
    ),
    Rule(
        "double",
        "code",
        "step",
        "N",
        "N",
        ("Double the result.", "Take twice the result."),
        lambda x: 2 * x,
        "2 * {x}",
        "2 * {x} = {y}",
    ),
    Rule(
        "modulo",
        "code",
        "step",
        "N",
        "N",
        ("Take the result modulo {a}.", "Divide the result by {a} and keep the remainder."),
        _mod,
        "{x} % {a}",
        "{x} mod {a} = {y}",
    ),
    Rule("final_value", "code", "question", "N", "N", ("What is the final value?",), _same, "{x}", "", skill=False),
    Rule("final_list", "code", "question", "L", "L", ("What is the final list?",), _same, "{x}", "", skill=False),
    # science
    Rule(
        "distance",
        "science",
        "opening",
        "",
        "km",
        ("A car moves at {a} km per hour for {b} hours.",),
        _times,
        "({a} * {b}, 'km')",
        "{a} * {b} = {y} km",
    ),
    Rule(
        "mass",
        "science",
        "opening",
        "",
        "g",
        ("A block of {a} cubic cm weighs {b} g per cubic cm.",),
        _times,
        "({a} * {b}, 'g')",
        "{a} * {b} = {y} g",
    ),
    Rule(
        "duration",
        "science",
        "opening",
        "",
        "h",
        ("A test runs for {a} days.",),
        lambda a: 24 * a,
        "(24 * {a}, 'h')",
        "24 * {a} = {y} h",
    ),
    Rule(
        "km_to_m",
        "science",
        "step",
        "km",
        "m",
        ("Convert the distance to metres.", "Express the distance in metres."),
        lambda x: 1000 * x,
        "({x}[0] * 1000, 'm')",
        "{x} km = {y} m",
    ),
    Rule(
        "g_to_mg",
        "science",
        "step",
        "g",
        "mg",
        ("Convert the mass to milligrams.", "Express the mass in milligrams."),
        lambda x: 1000 * x,
        "({x}[0] * 1000, 'mg')",
        "{x} g = {y} mg",
    ),
    Rule(
        "h_to_min",
        "science",
        "step",
        "h",
        "min",
        ("Convert the time to minutes.", "Express the time in minutes."),
        lambda x: 60 * x,
        "({x}[0] * 60, 'min')",
        "{x} h = {y} min",
    ),
    Rule(
        "travel_more",
        "science",
        "step",
        "m",
        "m",
        ("Then it moves {a} metres further.", "It goes on for {a} metres."),
        _add,
        "({x}[0] + {a}, 'm')",
        "{x} + {a} = {y} m",
    ),
    Rule(
        "add_mass",
        "science",
        "step",
        "g",
        "g",
        ("Another {a} g are added.", "It gains {a} g."),
        _add,
        "({x}[0] + {a}, 'g')",
        "{x} + {a} = {y} g",
    ),
    Rule(
        "fuel",
        "science",
        "step",
        "km",
        "kJ",
        ("It needs {a} kJ per km.", "Each km costs {a} kJ."),
        _times,
        "({x}[0] * {a}, 'kJ')",
        "{x} * {a} = {y} kJ",
    ),
    Rule(
        "part",
        "science",
        "step",
        "Q",
        "",
        ("Take one of {a} equal parts.", "Divide it into {a} equal parts and take one."),
        _divide,
        "({x}[0] // {a}, {x}[1])",
        "{x} / {a} = {y} {u}",
    ),
    Rule(
        "repeat",
        "science",
        "step",
        "Q",
        "",
        ("This happens {a} times in total.", "Repeat it {a} times."),
        _times,
        "({x}[0] * {a}, {x}[1])",
        "{x} * {a} = {y} {u}",
    ),
    Rule("how_much", "science", "question", "Q", "", ("How many {unit} is that?",), _same, "{x}", "", skill=False),
)

BY_ID = {rule.id: rule for rule in RULES}
SKILLS = tuple(rule for rule in RULES if rule.skill)
SKILL_IDS = tuple(rule.id for rule in SKILLS)


def skills_in(category: str) -> tuple[str, ...]:
    return tuple(rule.id for rule in SKILLS if rule.category == category)
