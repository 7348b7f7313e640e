"""Answers that are numbers, quantities, ratios, times, or lists, tuples, sets, intervals and matrices of them.

Invariant: pure and exact. What a value is taken to be, where writing leaves it open:
- A unit, a percent sign, a label ("12 apples") or a name ("x = 12") given on one side only is ignored: the question
  fixed it. On both sides units must agree after conversion, and names must be the same. Two different labels, or a
  label against a unit: unknown. So is a letter right after a number (3h), which may be a factor, against a bare number.
- 50 % is 0.5, and 50 where the other side is a bare number.
- Decimals equal what they round or cut off: 0.333333 is 1/3, 0.666666 is 2/3. Six significant digits at least, else
  they must be exact. From 15 digits on they are a computer's: 0.30000000000000004 is 0.3.
- {a, b} and a bare "a, b" have no order, [a, b], (a, b) and "a b" do. (a, b), [a, b], (a, b] are intervals as well as
  lists: two values in unlike brackets are different if one is half-open, else unknown; more or fewer are equal lists.
- {5} is 5 (the one solution), [5] is not.
- 10110_2 is the number it is in base 2; whether "10110" alone is meant so, the question knows: unknown.
- 2:3 is 2/3, 4:6 and no time. 12:30 is a time and a ratio: told where both readings agree.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import product
from typing import Literal

from actors.answers.units import Unit

Judgement = Literal["equal", "different", "unknown"]


@dataclass(frozen=True)
class Number:
    value: Fraction
    digits: int | None = None
    """Significant digits of a decimal; None for what is exact."""
    last: Fraction = Fraction(0)
    """What one unit of a decimal's last digit is worth."""
    unit: Unit | None = None
    label: str | None = None
    """A word after the number that is no known unit."""
    name: str | None = None
    """x in "x = 3"."""
    numeral: str | None = None
    """The digits of a number in a base that is not ten."""
    attached: bool = False
    """The unit is one letter, right after the number."""
    text: str = field(default="", compare=False)


@dataclass(frozen=True)
class Formula:
    """A member that only the sandbox can read. `unit`: of the quantity, where it has one."""

    text: str
    unit: Unit | None = None
    name: str | None = None


@dataclass(frozen=True)
class Ratio:
    """1:2:3, of two members at least."""

    parts: tuple[Fraction, ...]
    name: str | None = None


@dataclass(frozen=True)
class Time:
    """17:53:00, with days before it or "pm" behind it, of the clock or of a watch."""

    seconds: Fraction
    parts: int
    """2: hours and minutes or minutes and seconds, which the question knows; 3: with seconds."""
    half: bool = False
    """am or pm was said."""
    name: str | None = None


@dataclass(frozen=True)
class Collection:
    brackets: str
    """"[]", "()", "(]", "[)", "{}", "" for a bare list, "  " for numbers side by side."""
    items: tuple[Value, ...]
    name: str | None = None


@dataclass(frozen=True)
class Either:
    """A text with two readings."""

    readings: tuple[Value, ...]
    name: str | None = None


Value = Number | Formula | Ratio | Time | Collection | Either

Decide = Callable[[str, str], Judgement]
"""What is known of two formulas."""


def compare_values(a: Value, b: Value, decide: Decide) -> Judgement:
    if a.name and b.name and a.name != b.name:
        return "different"
    if isinstance(a, Either) or isinstance(b, Either):
        return _compare_readings(a, b, decide)
    if isinstance(a, Formula) or isinstance(b, Formula):
        return _compare_formulas(a, b, decide)
    if isinstance(a, Number) and isinstance(b, Number):
        return _compare_numbers(a, b)
    if isinstance(a, Time) and isinstance(b, Time):
        return _compare_times(a, b)
    if isinstance(a, Collection) and isinstance(b, Collection):
        return _compare_collections(a, b, decide)
    for collection, other in ((a, b), (b, a)):
        if isinstance(collection, Collection):
            if collection.brackets == "{}" and len(collection.items) == 1:
                return compare_values(collection.items[0], other, decide)
            return "unknown" if _holds_formulas(collection) else "different"
    for time, other in ((a, b), (b, a)):
        if isinstance(time, Time):
            return _time_and_other(time, other)
    return _compare_ratios(a, b)


def _compare_readings(a: Value, b: Value, decide: Decide) -> Judgement:
    """What all pairs of readings say; where some are of the same type, those say it."""
    pairs = list(product(*(v.readings if isinstance(v, Either) else (v,) for v in (a, b))))
    alike = [(x, y) for x, y in pairs if type(x) is type(y)]
    outcomes = {compare_values(x, y, decide) for x, y in alike or pairs}
    return outcomes.pop() if len(outcomes) == 1 else "unknown"


def _compare_formulas(a: Value, b: Value, decide: Decide) -> Judgement:
    """Formulas and numbers. What is in a unit on both sides is told only in the same one."""
    if not all(isinstance(v, Number | Formula) for v in (a, b)):
        return "unknown"
    if any(isinstance(v, Number) and (v.label or v.attached or v.numeral) for v in (a, b)):
        return "unknown"
    if any(isinstance(v, Number) and v.unit for v in (a, b)) and any(_has_letters(v) for v in (a, b)):
        return "unknown"  # which may be the unit
    units = [v.unit for v in (a, b) if isinstance(v, Number | Formula) and v.unit]
    if len(units) == 2 and units[0].dimension != units[1].dimension:
        return "different"
    if any(unit.is_percent for unit in units) or (len(units) == 2 and units[0] != units[1]):
        return "unknown"
    return decide(_text(a), _text(b))


def _has_letters(value: Value) -> bool:
    return isinstance(value, Formula) and bool(re.search(r"(?<![\\A-Za-z])[A-Za-z]", value.text))


def _text(value: Value) -> str:
    assert isinstance(value, Number | Formula)
    if isinstance(value, Formula) or value.unit is None:
        return value.text
    exact = value.value
    return value.text if value.digits else f"{exact.numerator}/{exact.denominator}"


def _holds_formulas(value: Value) -> bool:
    return isinstance(value, Formula) or (isinstance(value, Collection) and any(map(_holds_formulas, value.items)))


# ---------------------------------------------------------------- collections


def _compare_collections(a: Collection, b: Collection, decide: Decide) -> Judgement:
    if not a.brackets or not b.brackets or a.brackets == b.brackets == "{}":
        ordered = bool(a.brackets.strip() + b.brackets.strip()) and "{}" not in (a.brackets, b.brackets)
        ordered |= "  " in (a.brackets, b.brackets) and "{}" not in (a.brackets, b.brackets)
        return _all(a, b, decide) if ordered else _same_members(a, b, decide)
    outcome = _all(a, b, decide)
    if "{}" in (a.brackets, b.brackets):  # a set against an ordered list: told only where order does not matter
        if outcome == "equal":
            return outcome
        return "different" if _same_members(a, b, decide) == "different" else "unknown"
    if a.brackets == b.brackets or outcome != "equal":
        return outcome
    if {a.brackets, b.brackets} & {"(]", "[)"}:
        return "different"
    return "unknown" if len(a.items) == 2 and "  " not in (a.brackets, b.brackets) else "equal"


def _all(a: Collection, b: Collection, decide: Decide) -> Judgement:
    if len(a.items) != len(b.items):
        return "different"
    return _together([compare_values(x, y, decide) for x, y in zip(a.items, b.items, strict=True)])


def _same_members(a: Collection, b: Collection, decide: Decide) -> Judgement:
    """Every member of one is a member of the other."""
    outcomes: list[Judgement] = []
    for xs, ys in ((a.items, b.items), (b.items, a.items)):
        for x in xs:
            found = {compare_values(x, y, decide) for y in ys}
            outcomes.append("equal" if "equal" in found else "unknown" if "unknown" in found else "different")
    return _together(outcomes)


def _together(outcomes: list[Judgement]) -> Judgement:
    return "different" if "different" in outcomes else "unknown" if "unknown" in outcomes else "equal"


# ---------------------------------------------------------------- numbers, ratios, times


def _compare_numbers(a: Number, b: Number) -> Judgement:
    if (a.unit and b.label) or (b.unit and a.label):
        return "unknown"
    if a.unit and b.unit:
        if a.unit.dimension != b.unit.dimension:
            return "different"
        if a.unit.zero != b.unit.zero:
            return _compare_temperatures(a, a.unit, b, b.unit)
        same = _close(_scaled(a, a.unit.factor), _scaled(b, b.unit.factor))
    else:
        same = _close(a, b)
        for percent, bare in ((a, b), (b, a)):
            if percent.unit and percent.unit.is_percent:
                same |= _close(_scaled(percent, Fraction(1, 100)), bare)
    if not same:
        digits = {v.numeral for v in (a, b)} - {None}
        alone = [v for v in (a, b) if v.numeral is None and v.text.strip() in digits]
        return "unknown" if alone else "different"
    if (a.unit is None) != (b.unit is None) and (a.attached or b.attached):
        return "unknown"
    return "unknown" if a.label and b.label and a.label != b.label else "equal"


def _compare_temperatures(a: Number, of_a: Unit, b: Number, of_b: Unit) -> Judgement:
    """25 °C is 298.15 K as a temperature, 25 K as a difference of two."""
    scaled = _scaled(a, of_a.factor), _scaled(b, of_b.factor)
    if _close(*(replace(n, value=n.value + u.zero) for n, u in zip(scaled, (of_a, of_b), strict=True))):
        return "equal"
    return "unknown" if _close(*scaled) else "different"


def _scaled(number: Number, factor: Fraction) -> Number:
    return replace(number, value=number.value * factor, last=number.last * factor)


def _close(a: Number, b: Number) -> bool:
    """The same value, or one is the other rounded or cut off at its last digit, of six at least."""
    x, y = abs(a.value), abs(b.value)
    if a.value == b.value:
        return True
    digits = [n for n in (a.digits, b.digits) if n is not None]
    if not digits or a.value * b.value < 0:
        return False
    if max(digits) >= 15 and abs(x - y) <= max(x, y) * Fraction(1, 10**12):
        return True
    short, full, last = (x, y, a.last) if a.last >= b.last else (y, x, b.last)
    return min(digits) >= 6 and (abs(x - y) <= last / 2 or 0 < full - short < last)


def _compare_ratios(a: Value, b: Value) -> Judgement:
    """Two ratios, or one of two members against a number, which is its quotient."""
    if isinstance(a, Ratio) and isinstance(b, Ratio):
        if len(a.parts) != len(b.parts):
            return "different"
        same = all(x * b.parts[0] == y * a.parts[0] for x, y in zip(a.parts, b.parts, strict=True))
        return "equal" if same else "different"
    ratio, other = (a, b) if isinstance(a, Ratio) else (b, a)
    if not isinstance(ratio, Ratio) or not isinstance(other, Number) or len(ratio.parts) != 2:
        return "different"
    if other.unit or other.label:
        return "unknown"
    return "equal" if _close(Number(ratio.parts[0] / ratio.parts[1]), other) else "different"


def _compare_times(a: Time, b: Time) -> Judgement:
    if a.parts != b.parts and a.seconds in (b.seconds, b.seconds / 60, b.seconds * 60):
        return "unknown"  # 1:30 may be an hour and a half, or a minute and a half
    if a.half != b.half and abs(a.seconds - b.seconds) == 12 * 3600:
        return "unknown"
    return "equal" if a.seconds == b.seconds else "different"


def _time_and_other(time: Time, other: Value) -> Judgement:
    """ "1:30:00" and "90 minutes"."""
    if not isinstance(other, Number) or other.unit is None or other.unit.dimension != (("s", 1),):
        return "different" if isinstance(other, Ratio) else "unknown"
    if time.parts == 2 or time.half:
        return "unknown"
    return "equal" if _close(Number(time.seconds), _scaled(other, other.unit.factor)) else "different"
