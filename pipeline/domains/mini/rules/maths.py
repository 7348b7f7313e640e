"""Openings, steps and questions about a number of things."""

from __future__ import annotations

import math

from pipeline.domains.mini.rules.base import Rule, add, divide, ensure, remainder, same, times


def _subtract(x: int, a: int) -> int:
    ensure(a <= x, f"subtract: only {x} are there")
    return x - a


def _gcd(x: int, a: int) -> int:
    ensure(x >= 1 and a >= 1, "gcd: both numbers must be 1 or more")
    return math.gcd(x, a)


def _lcm(x: int, a: int) -> int:
    ensure(x >= 1 and a >= 1, "lcm: both numbers must be 1 or more")
    return math.lcm(x, a)


def _digit_sum(x: int) -> int:
    return sum(int(d) for d in str(x))


def _multiple(x: int, a: int) -> str:
    ensure(a >= 2, "multiple: the divisor must be 2 or more")
    return "no" if x % a else "yes"


MATHS: tuple[Rule, ...] = (
    Rule("things", "maths", "opening", "", "N", ("{N} has {a} {things}.",), same, "{a}", "", skill=False),
    Rule(
        "add",
        "maths",
        "step",
        "N",
        "N",
        ("{N} finds {a} more.", "{N} buys {a} more."),
        add,
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
        ("Then {N} has {a} times as many.",),
        times,
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
        divide,
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
        remainder,
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
        same,
        "{x}",
        "",
        skill=False,
    ),
)
