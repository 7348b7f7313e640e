"""The mini world as data: every opening, step and question of LANGUAGE.md, and which skills go together.

Invariant: a `Rule` is the only place that knows a sentence's wording, type and value. What skills may be combined is
never listed; it is derived by searching all orderings of types. Conditions on numbers are raised as `Contradiction`
by the rule's own `value`.

A type is "N" (number), "L" (list), "W" (word), a unit such as "km", or "Q" (any unit, in `takes` only). Values are
int, tuple of int (lists) or str (words); units live in the type.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal

CATEGORIES = ("maths", "code", "science")
UNITS = {
    "km": "kilometres", "m": "metres", "g": "grams", "mg": "milligrams", "kJ": "kilojoules", "h": "hours", "min": "minutes",
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
    """The line a solver writes, in {x}, {a}, {b} and the new value {y}."""
    skill: bool = True
    intent: str = ""
    method: str = ""
    difficulty: str = ""
    hint: str = ""
    script: str = ""

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


# ---------------------------------------------------------------- the scripts a tool call finds loaded
# Type-aware, so that skills that do not go together show it as an error. A quantity is a pair (number, unit).

_NUMBER = """def {id}(x{args}):
    if type(x) is not int:
        raise ValueError(f"{id}: needs a number, got {{x}}")
{body}"""
_LIST = """def {id}(x{args}):
    if type(x) is not list:
        raise ValueError(f"{id}: needs a list, got {{x}}")
{body}"""
_QUANTITY = """def {id}(x{args}):
    if type(x) is not tuple or {test}:
        raise ValueError(f"{id}: needs {want}, got {{x}}")
{body}"""


def _script(frame: str, id: str, body: str, args: str = "", **more: str) -> str:
    return frame.format(id=id, args=args, body="\n".join("    " + line for line in body.split("\n")), **more) + "\n"


def _unit_script(id: str, unit: str, body: str, args: str = "") -> str:
    test, want = (f'x[1] != "{unit}"', unit) if unit else ("len(x) != 2", "a quantity")
    return _script(_QUANTITY, id, body, args, test=test, want=want)


def _number(
    id: str, category: str, wordings: tuple[str, ...], value: Callable[..., Value], plain: str, working: str, intent: str,
    method: str, difficulty: str, body: str, hint: str = "Call it in a check; it raises when the condition fails.",
) -> Rule:  # fmt: skip
    args = ", a" if "{a}" in wordings[0] else ""
    script = _script(_NUMBER, id, body, args)
    return Rule(
        id, category, "step", "N", "N", wordings, value, plain, working, True, intent, method, difficulty, hint, script
    )


def _list(
    id: str, gives: str, wordings: tuple[str, ...], value: Callable[..., Value], plain: str, working: str, intent: str,
    method: str, difficulty: str, body: str, hint: str = "Call it on the list; it raises when there is none.",
) -> Rule:  # fmt: skip
    args = ", a" if "{a}" in wordings[0] else ""
    script = _script(_LIST, id, body, args)
    return Rule(
        id, "code", "step", "L", gives, wordings, value, plain, working, True, intent, method, difficulty, hint, script
    )


def _quantity(
    id: str, takes: str, gives: str, wordings: tuple[str, ...], value: Callable[..., Value], plain: str, working: str,
    intent: str, method: str, difficulty: str, body: str, hint: str = "Call it on a pair of number and unit.",
) -> Rule:  # fmt: skip
    args = ", a" if "{a}" in wordings[0] else ""
    script = _unit_script(id, "" if takes == "Q" else takes, body, args)
    return Rule(
        id,
        "science",
        "step",
        takes,
        gives,
        wordings,
        value,
        plain,
        working,
        True,
        intent,
        method,
        difficulty,
        hint,
        script,
    )


def _opening(
    id: str, unit: str, wording: str, value: Callable[..., Value], plain: str, working: str, intent: str, method: str
) -> Rule:
    args = "v, d" if "{b}" in wording else "a"
    body = {"distance": "(v * d, 'km')", "mass": "(v * d, 'g')", "duration": "(24 * a, 'h')"}[id]
    script = f"def {id}({args}):\n    return {body}\n"
    return Rule(
        id, "science", "opening", "", unit, (wording,), value, plain, working, True, intent, method,
        "Sets the scene and the unit; every later step must fit that unit.", "Gives a pair of number and unit.", script,
    )  # fmt: skip


def _scenery(
    id: str,
    category: str,
    role: Literal["opening", "question"],
    takes: str,
    gives: str,
    *wordings: str,
    plain: str = "{x}",
) -> Rule:
    return Rule(id, category, role, takes, gives, wordings, lambda x: x, plain, "", skill=False)


# ---------------------------------------------------------------- the table

RULES: tuple[Rule, ...] = (
    # maths
    _scenery("things", "maths", "opening", "", "N", "{N} has {a} {things}.", plain="{a}"),
    _number("add", "maths", ("{N} finds {a} more.", "{N} buys {a} more."), _add, "{x} + {a}", "{x} + {a} = {y}",
            "some more are added", "A known amount joins the current one: add the two.",
            "One more number to carry along.", "return x + a"),
    _number("subtract", "maths", ("{N} gives away {a}.", "{N} loses {a}."), _subtract, "{x} - {a}", "{x} - {a} = {y}",
            "some are taken away", "Take a known amount away. No more can go than are there.",
            "The amount left must not fall below zero.",
            'if a > x:\n    raise ValueError(f"subtract: only {x} are there")\nreturn x - a'),
    _number("multiply", "maths", ("Then {N} has {a} times as many.", "The amount grows {a} times."), _times, "{x} * {a}",
            "{x} * {a} = {y}", "the amount grows by a factor", "Multiply the current amount by a whole factor.",
            "Numbers grow, so later steps take more care.", "return x * a"),
    _number("share", "maths", ("{N} splits them evenly into {a} bags and keeps one bag.",
                               "{N} shares them equally among {a} boxes and keeps one box."), _divide, "{x} // {a}",
            "{x} / {a} = {y}", "an even split, one part is kept",
            "Split the amount into equal parts and go on with one. It must divide without a rest.",
            "The writer must choose numbers that divide.",
            'if x % a:\n    raise ValueError(f"share: {x} is not a multiple of {a}")\nreturn x // a'),
    _number("remainder", "maths", ("{N} packs them in rows of {a} and keeps the rest.",
                                   "{N} fills boxes of {a} and keeps what is left."), _mod, "{x} % {a}",
            "{x} mod {a} = {y}", "what is left over from full rows", "Fill rows of equal length; go on with what is left over.",
            "Asks for the rest of a division, which is easily mistaken for the quotient.", "return x % a"),
    _number("gcd", "maths", ("Take the greatest common divisor with {a}.",
                             "Take the largest number that divides both it and {a}."), _gcd, "math.gcd({x}, {a})",
            "gcd({x}, {a}) = {y}", "the greatest common divisor", "Find the largest number that divides both.",
            "Needs factors, not one operation.", "import math\nreturn math.gcd(x, a)"),
    _number("lcm", "maths", ("Take the least common multiple with {a}.",
                             "Take the smallest number that both it and {a} divide."), _lcm, "math.lcm({x}, {a})",
            "lcm({x}, {a}) = {y}", "the least common multiple", "Find the smallest number that both divide.",
            "Needs factors and a product.",
            'import math\nif x < 1:\n    raise ValueError("lcm: both numbers must be 1 or more")\nreturn math.lcm(x, a)'),
    _number("digit_sum", "maths", ("Add up the digits.", "Take the sum of the digits."), _digit_sum,
            "sum(map(int, str({x})))", "digits {x} = {y}", "the sum of the digits", "Add the decimal digits of the number.",
            "Treats the number as a text, which breaks the habit of arithmetic.", "return sum(map(int, str(x)))"),
    _number("larger", "maths", ("Keep the larger of it and {a}.", "If it is below {a}, take {a} instead."),
            lambda x, a: max(x, a), "max({x}, {a})", "max({x}, {a}) = {y}", "the larger of two numbers",
            "Compare the amount with a bound and keep the larger.", "A branch: one of two numbers goes on.",
            "return max(x, a)"),
    Rule("parity", "maths", "question", "N", "W", ("Is the number now even or odd?",), lambda x: "odd" if x % 2 else "even",
         "'odd' if {x} % 2 else 'even'", "{x} is {y}", True, "ask for even or odd",
         "End with the question whether the number is even or odd.", "The answer is a word, so a guess is right half the time.",
         "Print what it returns; it is the answer.", _script(_NUMBER, "parity", "return 'odd' if x % 2 else 'even'")),
    Rule("multiple", "maths", "question", "N", "W", ("Is the number now a multiple of {a}?",), _multiple,
         "'no' if {x} % {a} else 'yes'", "{x} mod {a}: {y}", True, "ask for a multiple, yes or no",
         "End with the question whether the number is a multiple of another.", "The rest of a division decides yes or no.",
         "Print what it returns; it is the answer.", _script(_NUMBER, "multiple", "return 'no' if x % a else 'yes'", ", a")),
    _scenery("how_many", "maths", "question", "N", "N", "How many {things} does {N} have now?", "What is the number now?"),
    # code
    _scenery("list", "code", "opening", "", "L", "A list holds {list}.", plain="{list}"),
    _list("keep_even", "L", ("Keep only the even values.", "Drop every odd value."),
          lambda x: tuple(v for v in x if v % 2 == 0), "[v for v in {x} if v % 2 == 0]", "even {x} = {y}",
          "only even values stay", "Filter the list: even values stay, in order.", "What follows sees a shorter list.",
          "return [v for v in x if v % 2 == 0]"),
    _list("keep_above", "L", ("Keep only the values above {a}.", "Drop every value up to {a}."),
          lambda x, a: tuple(v for v in x if v > a), "[v for v in {x} if v > {a}]", "above {a} {x} = {y}",
          "only values above a bound stay", "Filter the list by a bound; the bound itself goes.",
          "An off-by-one trap at the bound.", "return [v for v in x if v > a]"),
    _list("add_each", "L", ("Add {a} to every value.", "Raise every value by {a}."), lambda x, a: tuple(v + a for v in x),
          "[v + {a} for v in {x}]", "{x} + {a} = {y}", "every value grows by a number", "Map the list: the same number is added to each value.",
          "Many small sums in one step.", "return [v + a for v in x]"),
    _list("list_sum", "N", ("Add up all values.", "Take the sum of the list."), lambda x: sum(x), "sum({x})", "sum {x} = {y}",
          "the sum of the list", "Fold the list into its sum.", "The list is gone afterwards; a number goes on.", "return sum(x)"),
    _list("list_max", "N", ("Take the largest value.", "Take the maximum of the list."), _extreme(max), "max({x})",
          "max {x} = {y}", "the largest value", "Fold the list into its largest value; it must not be empty.",
          "The list is gone afterwards; a number goes on.", 'if not x:\n    raise ValueError("list_max: the list is empty")\nreturn max(x)'),
    _list("list_min", "N", ("Take the smallest value.", "Take the minimum of the list."), _extreme(min), "min({x})",
          "min {x} = {y}", "the smallest value", "Fold the list into its smallest value; it must not be empty.",
          "The list is gone afterwards; a number goes on.", 'if not x:\n    raise ValueError("list_min: the list is empty")\nreturn min(x)'),
    _list("count", "N", ("Count the values.", "Take the length of the list."), lambda x: len(x), "len({x})", "count {x} = {y}",
          "how many values there are", "Fold the list into its length.", "Counts what earlier filters left.", "return len(x)"),
    _list("position", "N", ("Take the value at position {a}.", "Take value number {a}."), _position, "{x}[{a} - 1]",
          "{x} at {a} = {y}", "the value at a position", "Pick a value by its position, counted from 1.",
          "Positions count from 1 and move when a filter came before.",
          'if not 1 <= a <= len(x):\n    raise ValueError(f"position: the list has {len(x)} values")\nreturn x[a - 1]'),
    _number("double", "code", ("Double the result.", "Take twice the result."), lambda x: 2 * x, "2 * {x}", "2 * {x} = {y}",
            "the result is doubled", "Once the list is folded into a number, double it.", "One more operation after the fold.", "return 2 * x"),
    _number("modulo", "code", ("Take the result modulo {a}.", "Divide the result by {a} and keep the remainder."), _mod,
            "{x} % {a}", "{x} mod {a} = {y}", "the result modulo a number",
            "Once the list is folded into a number, keep its remainder.", "Asks for the rest of a division.", "return x % a"),
    _scenery("final_value", "code", "question", "N", "N", "What is the final value?"),
    _scenery("final_list", "code", "question", "L", "L", "What is the final list?"),
    # science
    _opening("distance", "km", "A car moves at {a} km per hour for {b} hours.", lambda a, b: a * b, "({a} * {b}, 'km')",
             "{a} * {b} = {y} km", "distance from speed and time", "Open with a speed and a time; their product is a distance in km."),
    _opening("mass", "g", "A block of {a} cubic cm weighs {b} g per cubic cm.", lambda a, b: a * b, "({a} * {b}, 'g')",
             "{a} * {b} = {y} g", "mass from volume and density", "Open with a volume and a density; their product is a mass in grams."),
    _opening("duration", "h", "A test runs for {a} days.", lambda a: 24 * a, "(24 * {a}, 'h')", "24 * {a} = {y} h",
             "hours from days", "Open with a number of days; 24 hours each give a time in hours."),
    _quantity("km_to_m", "km", "m", ("Convert the distance to metres.", "Express the distance in metres."), lambda x: 1000 * x,
              "({x}[0] * 1000, 'm')", "{x} km = {y} m", "kilometres to metres", "One km is 1000 metres.",
              "The unit changes, and with it what may follow.", "return (x[0] * 1000, 'm')"),
    _quantity("g_to_mg", "g", "mg", ("Convert the mass to milligrams.", "Express the mass in milligrams."), lambda x: 1000 * x,
              "({x}[0] * 1000, 'mg')", "{x} g = {y} mg", "grams to milligrams", "One gram is 1000 milligrams.",
              "The unit changes, and with it what may follow.", "return (x[0] * 1000, 'mg')"),
    _quantity("h_to_min", "h", "min", ("Convert the time to minutes.", "Express the time in minutes."), lambda x: 60 * x,
              "({x}[0] * 60, 'min')", "{x} h = {y} min", "hours to minutes", "One hour is 60 minutes.",
              "The unit changes, and with it what may follow.", "return (x[0] * 60, 'min')"),
    _quantity("travel_more", "m", "m", ("Then it moves {a} metres further.", "It goes on for {a} metres."), _add,
              "({x}[0] + {a}, 'm')", "{x} + {a} = {y} m", "some metres further", "Add metres to a distance that is already in metres.",
              "Only fits after a conversion to metres.", "return (x[0] + a, 'm')", ),
    _quantity("add_mass", "g", "g", ("Another {a} g are added.", "It gains {a} g."), _add, "({x}[0] + {a}, 'g')",
              "{x} + {a} = {y} g", "some grams are added", "Add grams to a mass that is still in grams.", "Only fits a mass in grams.",
              "return (x[0] + a, 'g')"),
    _quantity("fuel", "km", "kJ", ("It needs {a} kJ per km.", "Each km costs {a} kJ."), _times, "({x}[0] * {a}, 'kJ')",
              "{x} * {a} = {y} kJ", "energy from distance", "Multiply the kilometres by the energy each one costs.",
              "Turns a distance in km into an energy in kJ.", "return (x[0] * a, 'kJ')"),
    _quantity("part", "Q", "", ("Take one of {a} equal parts.", "Divide it into {a} equal parts and take one."), _divide,
              "({x}[0] // {a}, {x}[1])", "{x} / {a} = {y} {u}", "one of equal parts",
              "Divide the quantity into equal parts and go on with one. It must divide without a rest.",
              "The writer must choose numbers that divide.",
              'if x[0] % a:\n    raise ValueError(f"part: {x[0]} is not a multiple of {a}")\nreturn (x[0] // a, x[1])'),
    _quantity("repeat", "Q", "", ("This happens {a} times in total.", "Repeat it {a} times."), _times,
              "({x}[0] * {a}, {x}[1])", "{x} * {a} = {y} {u}", "it happens several times", "Multiply the quantity by how often it happens.",
              "Numbers grow, so later steps take more care.", "return (x[0] * a, x[1])"),
    _scenery("how_much", "science", "question", "Q", "", "How many {unit} is that?"),
)  # fmt: skip

BY_ID = {rule.id: rule for rule in RULES}
SKILLS = tuple(rule for rule in RULES if rule.skill)
SKILL_IDS = tuple(rule.id for rule in SKILLS)


def skills_in(category: str) -> tuple[str, ...]:
    return tuple(rule.id for rule in SKILLS if rule.category == category)


# ---------------------------------------------------------------- which skills go together


@cache
def feasible(skills: frozenset[str]) -> bool:
    """Whether some problem uses every one of `skills` (further steps allowed): a search over all orderings of types."""
    categories = {BY_ID[s].category for s in skills}
    if len(categories) > 1:
        return False
    rules = [r for r in RULES if not categories or r.category in categories]
    frontier = deque((r.gives, skills - {r.id}) for r in rules if r.role == "opening")
    seen = set(frontier)
    while frontier:
        kind, missing = frontier.popleft()
        for rule in rules:
            if rule.role == "opening" or not rule.fits(kind):
                continue
            if rule.role == "question":
                if missing <= {rule.id}:
                    return True
                continue
            state = (rule.after(kind), missing - {rule.id})
            if state not in seen:
                seen.add(state)
                frontier.append(state)
    return False


def conflicts() -> list[tuple[str, str]]:
    """Pairs of skills of one category that no problem can use together."""
    return [(a, b) for a, b in _pairs() if not feasible(frozenset((a, b)))]


def largest_feasible(skills: Iterable[str]) -> list[frozenset[str]]:
    """All largest subsets of `skills` that some problem can use, in a fixed order."""
    wanted = sorted(set(skills))
    layer = [frozenset(wanted)]
    while layer:
        good = [s for s in layer if feasible(s)]
        if good:
            return good
        smaller = {s - {x} for s in layer for x in s}
        layer = sorted(smaller, key=lambda s: sorted(s))
    return []


# ---------------------------------------------------------------- the held-out split

HELDOUT_PERCENT = 11


def _pairs() -> list[tuple[str, str]]:
    ids = sorted(SKILL_IDS)
    return [(a, b) for i, a in enumerate(ids) for b in ids[i + 1 :] if BY_ID[a].category == BY_ID[b].category]


@cache
def needs(skill: str) -> frozenset[str]:
    """Skills that every problem with `skill` uses too (fuel needs distance), found by leaving each other one out."""
    rules = [r for r in RULES if r.category == BY_ID[skill].category]

    def reachable(without: str) -> bool:
        kinds = {r.gives for r in rules if r.role == "opening" and r.id != without}
        while True:
            usable = [r for r in rules if r.id != without and r.role != "opening" and any(r.fits(k) for k in kinds)]
            new = kinds | {r.after(k) for r in usable if r.role == "step" for k in kinds if r.fits(k)}
            if new == kinds:
                return skill in {r.id for r in usable} or (BY_ID[skill].role == "opening" and without != skill)
            kinds = new

    return frozenset(r.id for r in rules if r.skill and r.id != skill and not reachable(r.id))


@cache
def heldout_pairs() -> frozenset[frozenset[str]]:
    """Pairs of skills that only the benchmark may combine: chosen by hash among pairs where neither needs the other."""
    pairs = (p for p in _pairs() if feasible(frozenset(p)) and p[0] not in needs(p[1]) and p[1] not in needs(p[0]))
    return frozenset(frozenset(p) for p in pairs if _percent("|".join(p)) < HELDOUT_PERCENT)


def is_heldout(skills: Iterable[str]) -> bool:
    """Whether a combination is reserved for the benchmark: it holds a held-out pair, needed skills counted in.

    Monotone: what is pruned from a combination that is not held out is not held out either.
    """
    every = {s for skill in skills for s in (skill, *(needs(skill) if skill in BY_ID else ()))}
    return any(pair <= every for pair in heldout_pairs())


def _percent(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) % 100
