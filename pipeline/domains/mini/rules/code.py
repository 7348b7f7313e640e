"""Openings, steps and questions about a list of values, and the number that comes of it."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.domains.mini.rules.base import Rule, ensure, remainder, same


def _extreme(of: Callable[[tuple[int, ...]], int]) -> Callable[[tuple[int, ...]], int]:
    def value(x: tuple[int, ...]) -> int:
        ensure(len(x) > 0, "the list is empty")
        return of(x)

    return value


def _position(x: tuple[int, ...], a: int) -> int:
    ensure(1 <= a <= len(x), f"position: the list has {len(x)} values")
    return x[a - 1]


CODE: tuple[Rule, ...] = (
    Rule("list", "code", "opening", "", "L", ("A list holds {list}.",), same, "{list}", "", skill=False),
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
        ("Keep only the values above {a}.",),
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
        ("Take value number {a}.",),
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
        remainder,
        "{x} % {a}",
        "{x} mod {a} = {y}",
    ),
    Rule("final_value", "code", "question", "N", "N", ("What is the final value?",), same, "{x}", "", skill=False),
    Rule("final_list", "code", "question", "L", "L", ("What is the final list?",), same, "{x}", "", skill=False),
)
