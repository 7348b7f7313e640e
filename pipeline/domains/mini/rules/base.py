"""What a rule is, and the values that rules of several categories give.

A type is "N" (number), "L" (list), "W" (word), a unit such as "km", or "Q" (any unit, in `takes` only). Values are
int, tuple of int (lists) or str (words); units live in the type.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

UNITS = {
    "km": "kilometres", "m": "metres", "g": "grams", "mg": "milligrams",
    "kJ": "kilojoules", "h": "hours", "min": "minutes",
}  # fmt: skip

Value = int | tuple[int, ...] | str

CAP = 999_999
"""Largest value that a problem reaches."""


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


def ensure(holds: bool, complaint: str) -> None:
    if not holds:
        raise Contradiction(complaint)


def add(x: int, a: int) -> int:
    return x + a


def times(x: int, a: int) -> int:
    ensure(a >= 1, "the factor must be 1 or more")
    return x * a


def divide(x: int, a: int) -> int:
    ensure(a >= 1 and x % a == 0, f"{x} is not a multiple of {a}")
    return x // a


def remainder(x: int, a: int) -> int:
    ensure(a >= 2, "the divisor must be 2 or more")
    return x % a


def same(x: Value) -> Value:
    return x
