"""The executing derivation: a problem's sentences -> a plain Python program that computes its answer.

Every sentence becomes a function on (kind, x), so that the program can also run without some of them, and with other
numbers at the start: that is how it finds out what the answer depends on. Nothing here is shared with the symbolic
derivation. `solve` returns `{"answer": text, "idle": indexes of the sentences that it does not depend on}`, or
`{"unsolvable": reason}`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache

from actors.verifiers.mini.grammar import Sentence

_PRELUDE = """\
import itertools
import random


class Unsolvable(Exception):
    pass


def need(condition, reason):
    if not condition:
        raise Unsolvable(reason)


def fits(kind, *wanted):
    need(kind in wanted, f'for {wanted[0]}, and it is {kind}')


def gcd(a, b):
    while b:
        a, b = b, a % b
    return a


def bounded(kind, x):
    need(max(x if isinstance(x, list) else [x], default=0) < 10**6, 'the number is too large')
    return kind, x


def run(given, kept):
    kind, x = bounded(*begin(given))
    for i in kept:
        kind, x = bounded(*STEPS[i](kind, x))
    return ask(kind, x)


def outcome(given, kept):
    try:
        return run(given, kept)
    except Unsolvable:
        return None


def solve():
    every = tuple(range(len(STEPS)))
    try:
        answer = run(GIVEN, every)
    except Unsolvable as e:
        return {'unsolvable': str(e)}
    others = ((g, a) for g in neighbours() if (a := outcome(g, every)) is not None)
    cases = [(GIVEN, answer), *itertools.islice(others, 120)]
    if len({a for _, a in cases}) == 1:  # perhaps for want of numbers that can be divided as these are
        multiples = ([k * n for n in GIVEN] for k in range(2, 40))
        cases += [(g, a) for g in multiples if (a := outcome(g, every)) is not None]
    if len(cases) > 5 and len({a for _, a in cases}) == 1:
        return {'answer': answer, 'idle': list(range(len(STEPS) + 2))}
    for size in range(len(STEPS), 0, -1):
        for rest in itertools.combinations(every, len(STEPS) - size):
            if all(outcome(g, rest) == a for g, a in cases):
                return {'answer': answer, 'idle': [i + 1 for i in every if i not in rest]}
    return {'answer': answer, 'idle': []}


def neighbours():
    draw = random.Random(str(GIVEN))
    for _ in range(400):
        if not LIST:
            yield [draw.randrange(n // 2, 2 * n + 10) for n in GIVEN]
            continue
        size = min(9, max(2, len(GIVEN) + draw.choice((-1, 0, 1))))
        yield [draw.randrange(min(GIVEN) // 2, 2 * max(GIVEN) + 10) for _ in range(size)]
"""

# opening -> (kind, category, value); {0}, {1} are its numbers
_OPENINGS = {
    "has": ("things", "maths", "given[0]"),
    "list": ("list", "code", "list(given)"),
    "distance": ("km", "science", "given[0] * given[1]"),
    "mass": ("g", "science", "given[0] * given[1]"),
    "duration": ("h", "science", "given[0] * 24"),
}

_ANY = "unit"

# step -> (kind before, kind after, lines); _ANY before: any unit, after: the same. {a} is the step's number.
_STEPS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "add": ("things", "things", ("x = x + {a}",)),
    "subtract": ("things", "things", ("need(x >= {a}, 'cannot take {a} away')", "x = x - {a}")),
    "multiply": ("things", "things", ("need({a} > 0, 'no times as many')", "x = x * {a}")),
    "share": ("things", "things", ("need({a} > 0 and x % {a} == 0, 'not {a} even parts')", "x = x // {a}")),
    "remainder": ("things", "things", ("need({a} > 1, 'rows of {a}')", "x = x % {a}")),
    "gcd": ("things", "things", ("need(x > 0 and {a} > 0, 'a divisor of nothing')", "x = gcd(x, {a})")),
    "lcm": ("things", "things", ("need(x > 0 and {a} > 0, 'a multiple of nothing')", "x = x // gcd(x, {a}) * {a}")),
    "digit_sum": ("things", "things", ("x = sum(int(digit) for digit in str(x))",)),
    "larger": ("things", "things", ("x = {a} if x < {a} else x",)),
    "keep_even": ("list", "list", ("x = [v for v in x if v % 2 == 0]",)),
    "keep_above": ("list", "list", ("x = [v for v in x if v > {a}]",)),
    "add_each": ("list", "list", ("x = [v + {a} for v in x]",)),
    "list_sum": ("list", "result", ("x = sum(x)",)),
    "list_max": ("list", "result", ("need(x, 'nothing is left')", "x = sorted(x)[-1]")),
    "list_min": ("list", "result", ("need(x, 'nothing is left')", "x = sorted(x)[0]")),
    "count": ("list", "result", ("x = len(x)",)),
    "position": ("list", "result", ("need(1 <= {a} <= len(x), 'no value number {a}')", "x = x[{a} - 1]")),
    "double": ("result", "result", ("x = x + x",)),
    "modulo": ("result", "result", ("need({a} > 1, 'modulo {a}')", "x = x % {a}")),
    "km_to_m": ("km", "m", ("x = x * 1000",)),
    "g_to_mg": ("g", "mg", ("x = x * 1000",)),
    "h_to_min": ("h", "min", ("x = x * 60",)),
    "travel_more": ("m", "m", ("x = x + {a}",)),
    "add_mass": ("g", "g", ("x = x + {a}",)),
    "fuel": ("km", "kJ", ("x = x * {a}",)),
    "part": (_ANY, _ANY, ("need({a} > 0 and x % {a} == 0, 'not {a} equal parts')", "x = x // {a}")),
    "repeat": (_ANY, _ANY, ("need({a} > 0, 'it never happens')", "x = x * {a}")),
}

_UNITS = {
    "kilometres": "km",
    "metres": "m",
    "grams": "g",
    "milligrams": "mg",
    "hours": "h",
    "minutes": "min",
    "kilojoules": "kJ",
}

# question -> (kind, lines); that for a quantity names its own
_QUESTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "how_many": ("things", ("return str(x)",)),
    "number": ("things", ("return str(x)",)),
    "parity": ("things", ("return ('even', 'odd')[x % 2]",)),
    "multiple": ("things", ("need({a} > 1, 'multiples of {a}')", "return 'no' if x % {a} else 'yes'")),
    "final_value": ("result", ("return str(x)",)),
    "final_list": ("list", ("return str(x)",)),
}


def compile_program(sentences: Sequence[Sentence]) -> str:
    """Python source with a function `solve`."""
    opening, *steps, question = sentences
    kind, _, value = _OPENINGS[opening.rule]
    parts = [f"GIVEN = {list(opening.numbers)}\nLIST = {opening.rule == 'list'}\n"]
    parts.append(_function("begin", "given", [f"return '{kind}', {value}"]))
    for i, step in enumerate(steps):
        before, after, lines = _STEPS[step.rule]
        kinds = tuple(_UNITS.values()) if before == _ANY else (before,)
        body = [f"fits(kind, {', '.join(map(repr, kinds))})", *lines]
        gives = "kind" if after == _ANY else repr(after)
        parts.append(_function(f"step_{i}", "kind, x", [*body, f"return {gives}, x"], step))
    parts.append(f"STEPS = [{', '.join(f'step_{i}' for i in range(len(steps)))}]\n")
    asked, lines = _QUESTIONS.get(question.rule) or (_UNITS[question.unit], ("return str(x)",))
    parts.append(_function("ask", "kind, x", [f"fits(kind, {asked!r})", *lines], question))
    return "\n\n".join([_PRELUDE, *parts])


def _function(name: str, parameters: str, lines: Sequence[str], sentence: Sentence | None = None) -> str:
    number = sentence.numbers[0] if sentence and sentence.numbers else ""
    return f"def {name}({parameters}):\n" + "".join(f"    {line}\n" for line in lines).replace("{a}", str(number))


# ---------------------------------------------------------------- what a problem is, and which skills go together


def category_of(sentences: Sequence[Sentence]) -> str:
    return _OPENINGS[sentences[0].rule][1]


def is_category(name: str | None) -> bool:
    """It is one of the language's. A domain that uses the language may have other categories."""
    return any(name == category for _, category, _ in _OPENINGS.values())


def is_worded(sentences: Sequence[Sentence]) -> bool:
    """The question asks for a word and not for a number."""
    return sentences[-1].rule in ("parity", "multiple")


def skills_of(sentences: Sequence[Sentence], idle: Collection[int] = ()) -> set[str]:
    """The skills of the sentences but the idle ones. A product of which a factor is 0 or 1 is no use of its skill."""
    skills = {*_STEPS, "distance", "mass", "duration", "parity", "multiple"}
    return {s.rule for i, s in enumerate(sentences) if i not in idle and s.rule in skills and not is_empty_product(s)}


def is_empty_product(sentence: Sentence) -> bool:
    return sentence.rule in ("distance", "mass", "fuel") and min(sentence.numbers) < 2


_POINTLESS = {"keep_above", "list_max"}
"""Whatever is dropped, the largest value stays."""


@cache
def most_together(offered: frozenset[str]) -> int:
    """How many of the skills offered one problem can use, by the kinds that steps take and give."""
    reached = {(kind, offered & {rule}) for rule, (kind, _, _) in _OPENINGS.items()}
    todo = list(reached)
    while todo:
        kind, used = todo.pop()
        for rule, (before, after, _) in _STEPS.items():
            if before == kind or (before == _ANY and kind in _UNITS.values()):
                if {rule, *used} >= _POINTLESS:
                    continue
                state = (kind if after == _ANY else after, used | (offered & {rule}))
                if state not in reached:
                    reached.add(state)
                    todo.append(state)
    words = bool(offered & {"parity", "multiple"})
    return max(len(used) + (words and kind == "things") for kind, used in reached)
