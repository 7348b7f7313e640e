"""The executing derivation: a problem's clauses -> a plain Python program that computes its answer.

Types are checked while compiling (a step that does not fit the current type never runs), conditions are `need(...)`
lines of the program. Nothing here is shared with the symbolic derivation. The program's `solve` returns
`{"answer": text}` or `{"unsolvable": reason}`.
"""

from __future__ import annotations

from actors.verifiers.mini.controlled import Clause, Reading

PRELUDE = """\
class Unsolvable(Exception):
    pass


def need(condition, reason):
    if not condition:
        raise Unsolvable(reason)


def gcd(a, b):
    while b:
        a, b = b, a % b
    return a


def solve():
    try:
        return {"answer": answer()}
    except Unsolvable as e:
        return {"unsolvable": str(e)}


def answer():
"""

# rule -> (type before, type after, lines). A type is "things", "list", "result", or a unit; "unit" stands for any unit.
# {a} is the step's number.
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
    "part": ("unit", "unit", ("need({a} > 0 and x % {a} == 0, 'not {a} equal parts')", "x = x // {a}")),
    "repeat": ("unit", "unit", ("need({a} > 0, 'it never happens')", "x = x * {a}")),
}

_UNITS = ("km", "m", "g", "mg", "h", "min", "kJ")

_BOUND = "need(max(x, default=0) <= 10**9 if isinstance(x, list) else x <= 10**9, 'the number is too large')"


class DoesNotFit(Exception):
    """A step or question that the current type rules out: the problem is unsolvable as it stands."""


def compile_program(reading: Reading) -> str:
    """Python source with a function `solve`. Raises DoesNotFit."""
    kind, lines = _opening(reading.opening)
    lines.append(_BOUND)
    for step in reading.steps:
        before, after, body = _STEPS[step.rule]
        fits = kind in _UNITS if before == "unit" else kind == before
        if not fits:
            raise DoesNotFit(f"{step.rule} needs {before}, the value is {kind}")
        kind = kind if after == "unit" else after
        number = step.numbers[0] if step.numbers else None
        lines += [line.format(a=number) for line in body] + [_BOUND]
    lines += _question(reading.question, kind)
    return PRELUDE + "".join(f"    {line}\n" for line in lines)


def _opening(opening: Clause) -> tuple[str, list[str]]:
    numbers = opening.numbers
    match opening.rule:
        case "has":
            return "things", [f"x = {numbers[0]}"]
        case "list":
            return "list", [f"x = {list(numbers)}"]
        case "distance":
            return "km", [f"x = {numbers[0]} * {numbers[1]}"]
        case "mass":
            return "g", [f"x = {numbers[0]} * {numbers[1]}"]
        case "duration":
            return "h", [f"x = {numbers[0]} * 24"]
    raise KeyError(opening.rule)


def _question(question: Clause, kind: str) -> list[str]:
    needed = {
        "maths_number": "things",
        "parity": "things",
        "multiple": "things",
        "code_number": "result",
        "code_list": "list",
        "quantity": question.unit,
    }[question.rule]
    if kind != needed:
        raise DoesNotFit(f"the question is for {needed}, the value is {kind}")
    match question.rule:
        case "parity":
            return ["return ('even', 'odd')[x % 2]"]
        case "multiple":
            (a,) = question.numbers
            return [f"need({a} > 1, 'multiples of {a}')", f"return 'no' if x % {a} else 'yes'"]
    return ["return str(x)"]
