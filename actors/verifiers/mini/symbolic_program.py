"""The symbolic derivation: sent to the sandbox as source, given a problem's clauses, returns its answer.

Every value is an exact sympy expression times a dimension (things counted, a plain number, a physical unit), so a step
that does not apply shows as a dimension that does not cancel, and a condition as a sympy relation that is not true.
Which steps matter, and which skills go together, is found out with the same steps, by trying.
"""

from itertools import combinations
from typing import Any

import sympy as sp

LIMIT = 999_999
THING, ITEM = sp.symbols("thing item", positive=True)
KM, M, G, MG, H, MIN, KJ = sp.symbols("km m g mg h min kJ", positive=True)
UNITS = {"km": KM, "m": M, "g": G, "mg": MG, "h": H, "min": MIN, "kJ": KJ}


class Unsolvable(Exception):
    pass


def require(condition, reason):
    """A sympy relation (or a Python bool) that must hold."""
    if condition != True:  # noqa: E712 - sympy's `true` is not the singleton True, and an open relation is neither
        raise Unsolvable(reason)


def magnitude(value, dimension, rule):
    """`value / dimension`, which must be a plain number: the step applies to this kind of value."""
    require(not isinstance(value, list), f"{rule} applies to one value, not to a list")
    amount, unit = value
    require((unit / dimension).is_number, f"{rule} does not apply to a value in {unit}")
    return amount * (unit / dimension)


def values(value, rule):
    require(isinstance(value, list), f"{rule} applies to a list")
    return value


def rest(x, a):
    require(sp.Ge(a, 2), f"rows of {a}")
    return x - a * sp.floor(sp.Rational(x, a))


def quotient(x, a):
    require(sp.Ge(a, 1), f"{a} parts")
    y = sp.Rational(x, a)
    require(y.is_integer, f"{x} cannot be divided into {a} equal parts")
    return y


def positive(*numbers):
    for number in numbers:
        require(sp.Ge(number, 1), f"{number} is not positive")


def common_divisor(x, a):
    positive(x, a)
    return sp.gcd(x, a)


def common_multiple(x, a):
    positive(x, a)
    return x * a / sp.gcd(x, a)


def times(x, a):
    positive(a)
    return x * a


def difference(x, a):
    require(sp.Ge(x - a, 0), f"{x} is less than {a}")
    return x - a


def digit_sum(x):
    total = sp.Integer(0)
    for place in range(len(str(x))):
        total += sp.floor(x / sp.Integer(10) ** place) - 10 * sp.floor(x / sp.Integer(10) ** (place + 1))
    return total


def extreme(pick):
    def of(items):
        require(len(items) > 0, "the list is empty")
        return pick(*items)

    return of


def at(items, a):
    require(sp.And(sp.Ge(a, 1), sp.Le(a, len(items))), f"there is no position {a} in a list of {len(items)}")
    return items[int(a) - 1]


ON_THINGS: dict[str, Any] = {
    "add": lambda x, a: x + a,
    "subtract": difference,
    "multiply": times,
    "share": quotient,
    "remainder": rest,
    "gcd": common_divisor,
    "lcm": common_multiple,
    "digit_sum": digit_sum,
    "larger": lambda x, a: sp.Max(x, a),
}
ON_RESULTS: dict[str, Any] = {"double": lambda x: x * 2, "modulo": rest}
ON_LISTS: dict[str, Any] = {
    "keep_even": lambda items: [v for v in items if sp.Eq(v - 2 * sp.floor(v / 2), 0) == True],  # noqa: E712
    "keep_above": lambda items, a: [v for v in items if sp.Gt(v, a) == True],  # noqa: E712
    "add_each": lambda items, a: [v + a for v in items],
}
FROM_LISTS: dict[str, Any] = {
    "list_sum": lambda items: sp.Add(*items),
    "list_max": extreme(sp.Max),
    "list_min": extreme(sp.Min),
    "count": lambda items: sp.Integer(len(items)),
    "position": at,
}
# What a unit is worth in another one, and what a rate turns it into.
CONVERSIONS = {"km_to_m": (KM, M, 1000), "g_to_mg": (G, MG, 1000), "h_to_min": (H, MIN, 60)}
GAINS = {"travel_more": M, "add_mass": G}
ON_ANY_UNIT: dict[str, Any] = {"part": quotient, "repeat": times}


def begin(rule, numbers):
    if rule == "has":
        return (numbers[0], THING)
    if rule == "list":
        return list(numbers)
    if rule == "duration":
        return (numbers[0] * 24, H)
    rate, span = {"distance": (KM / H, H), "mass": (G / M**3, M**3)}[rule]
    return (numbers[0] * numbers[1], rate * span)


def follow(value, rule, numbers):
    if rule in ON_THINGS:
        return (ON_THINGS[rule](magnitude(value, THING, rule), *numbers), THING)
    if rule in ON_RESULTS:
        return (ON_RESULTS[rule](magnitude(value, ITEM, rule), *numbers), ITEM)
    if rule in ON_LISTS:
        return ON_LISTS[rule](values(value, rule), *numbers)
    if rule in FROM_LISTS:
        return (FROM_LISTS[rule](values(value, rule), *numbers), ITEM)
    if rule in CONVERSIONS:
        old, new, factor = CONVERSIONS[rule]
        return (magnitude(value, old, rule) * factor, new)
    if rule in GAINS:
        return (magnitude(value, GAINS[rule], rule) + numbers[0], GAINS[rule])
    if rule == "fuel":
        return (magnitude(value, KM, rule) * numbers[0], KJ)
    require(not isinstance(value, list) and value[1] in UNITS.values(), f"{rule} applies to a quantity")
    amount, unit = value
    return (ON_ANY_UNIT[rule](amount, *numbers), unit)


def conclude(value, rule, numbers, unit):
    if rule == "code_list":
        return "[" + ", ".join(str(v) for v in values(value, rule)) + "]"
    if rule == "code_number":
        return str(magnitude(value, ITEM, rule))
    if rule == "quantity":
        require(not isinstance(value, list) and value[1] == UNITS[unit], f"the result is not in {unit}")
        return str(value[0])
    x = magnitude(value, THING, rule)
    if rule == "maths_number":
        return str(x)
    if rule == "parity":
        return "even" if x.is_even else "odd"
    (a,) = numbers
    require(sp.Ge(a, 2), f"multiples of {a}")
    return "yes" if sp.Rational(x, a).is_integer else "no"


def bounded(value):
    for number in value if isinstance(value, list) else [value[0]]:
        require(sp.Le(number, LIMIT), f"{number} is beyond {LIMIT}")
    return value


def derive(clauses):
    """The answer of clauses [rule, numbers, unit], opening first, question last. Raises Unsolvable."""
    (rule, numbers, _), *steps, (asked, operands, unit) = clauses
    value = bounded(begin(rule, numbers))
    for rule, numbers, _ in steps:
        value = step(value, rule, numbers)
    return conclude(value, asked, operands, unit)


TAKEN: dict[Any, Any] = {}


def step(value, rule, numbers):
    """`follow`, within bounds; remembered, because the search for idle steps takes the same ones many times."""
    key = (isinstance(value, list), tuple(value), rule, tuple(numbers))
    if key not in TAKEN:
        try:
            TAKEN[key] = bounded(follow(value, rule, numbers))
        except Unsolvable as e:
            TAKEN[key] = e
    if isinstance(TAKEN[key], Unsolvable):
        raise TAKEN[key]
    return TAKEN[key]


def solve(clauses, offered):
    """`{"answer": text, "idle": indexes of the clauses that it does not depend on, "most": how many of the skills
    offered some problem uses}`, or `{"unsolvable": reason}`."""
    clauses = [(rule, [sp.Integer(n) for n in numbers], unit) for rule, numbers, unit in clauses]
    try:
        answer = derive(clauses)
    except Unsolvable as e:
        return {"unsolvable": str(e)}
    without = idle(clauses, answer)
    used = {rule for i, (rule, _, _) in enumerate(clauses) if i not in without} & set(offered)
    return {"answer": answer, "idle": without, "most": len(used) if used == set(offered) else most(offered)}


# ---------------------------------------------------------------- what the answer depends on

SAMPLES, TRIES = 96, 400
ENOUGH = 6
"""Samples from which it is told that the answer is always the same."""
STRIDES = (618, 755, 414, 732, 236, 646, 317, 162, 358)


def derived(clauses):
    """The answer, or None where there is none."""
    try:
        return derive(clauses)
    except Unsolvable:
        return None


def nearby(clauses):
    """The clauses with other numbers in the opening, each once: evenly spread from half of each number to twice as
    much."""
    (rule, numbers, _), *rest = clauses
    seen = {tuple(numbers)}
    for k in range(1, TRIES):
        given = list(numbers)
        if rule == "list":
            given = {0: given, 1: given[1:], 2: [*given, given[0]]}[k % 3]
            if not 2 <= len(given) <= 9:
                continue
        moved = []
        for n, stride in zip(given, STRIDES, strict=False):
            low, width = n // 2, n + n // 2 + 10
            step = next(s for s in range(width * stride // 1000 + 1, 2 * width) if sp.igcd(s, width) == 1)
            moved.append(low + k * step % width)
        if tuple(moved) not in seen:
            seen.add(tuple(moved))
            yield [(rule, moved, None), *rest]


class Samples:
    """Clauses and answers of numbers for which the problem holds, the given ones first; worked out as they are
    needed."""

    def __init__(self, clauses, answer):
        self.known = [(clauses, answer)]
        self.more = ((c, a) for c in nearby(clauses) if (a := derived(c)) is not None)

    def __iter__(self):
        at = 0
        while at < SAMPLES:
            if at == len(self.known):
                found = next(self.more, None)
                if found is None:
                    return
                self.known.append(found)
            yield self.known[at]
            at += 1


def idle(clauses, answer):
    """Of the steps, the largest set that can be left out together and never changes the answer; a product with a
    factor of 0 or 1; every clause where the answer is always the same."""
    samples = Samples(clauses, answer)
    if all(a == answer for _, a in samples) and len(samples.known) >= ENOUGH:
        return list(range(len(clauses)))
    factors = [i for i, (rule, n, _) in enumerate(clauses) if rule in ("distance", "mass", "fuel") and min(n) < 2]
    steps = range(1, len(clauses) - 1)
    for size in range(len(steps), 0, -1):
        for dropped in combinations(steps, size):
            if all(derived([c for i, c in enumerate(other) if i not in dropped]) == a for other, a in samples):
                return sorted({*dropped, *factors})
    return factors


# ---------------------------------------------------------------- which skills go together

OPENINGS = {"has": [1], "list": [1, 2], "distance": [1, 1], "mass": [1, 1], "duration": [1]}
STEPS = [*ON_THINGS, *ON_RESULTS, *ON_LISTS, *FROM_LISTS, *CONVERSIONS, *GAINS, "fuel", *ON_ANY_UNIT]


def some(value):
    """A value of the same kind for which every step holds that can hold for its kind."""
    return [sp.Integer(1), sp.Integer(2)] if isinstance(value, list) else (sp.Integer(4), value[1])


def successors(value):
    """(step, a value of the kind it leads to) for each step that some numbers allow."""
    for rule in STEPS:
        for numbers in ([], [sp.Integer(1)], [sp.Integer(2)]):
            try:
                yield rule, some(follow(value, rule, numbers))
                break
            except (Unsolvable, TypeError, IndexError):
                continue


def most(offered):
    """How many of the skills offered one problem can use: a search over kinds of values, with the steps themselves.
    That a filter for large values leaves the largest one alone is no matter of kinds."""
    best, table = 0, {}
    for opening, numbers in OPENINGS.items():
        value = some(begin(opening, [sp.Integer(n) for n in numbers]))
        layer = {(str(value), frozenset({opening}) & frozenset(offered)): value}
        seen = set(layer)
        while layer:
            fresh = {}
            for (kind, used), value in layer.items():
                asked = not isinstance(value, list) and value[1] == THING and {"parity", "multiple"} & set(offered)
                best = max(best, len(used) + bool(asked))
                if kind not in table:
                    table[kind] = list(successors(value))
                for rule, after in table[kind]:
                    state = (str(after), used | ({rule} & set(offered)))
                    if state not in seen and not {"keep_above", "list_max"} <= state[1]:
                        seen.add(state)
                        fresh[state] = after
            layer = fresh
    return best
