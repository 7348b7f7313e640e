"""Whatever is sampled under the form of a turn is read as it stands."""

from __future__ import annotations

import re
from random import Random
from typing import Any

import pytest

from actors.chat import parse_turn
from actors.guidance import TURN
from actors.tool_calls import EXAMPLE, ToolCall

SIGNS = 'abnz09_ "\\/{}[]<>()|`~#*:.,=$-\n\t\x1f\x85\ufeffé数TU'


def drawn(rng: Random, parts: Any) -> str:
    """A text that matches a parsed expression, of few signs, most of which mean something to a reader of calls."""
    return "".join(_part(rng, op, argument) for op, argument in parts)


def _part(rng: Random, op: Any, argument: Any) -> str:
    name = str(op)
    if name == "LITERAL":
        return chr(argument)
    if name in ("IN", "NOT_LITERAL"):
        return rng.choice([c for c in (*SIGNS, *map(chr, range(48, 123))) if _is_in(c, name, argument)])
    if name == "MAX_REPEAT":
        low, high, inner = argument
        return "".join(drawn(rng, inner) for _ in range(rng.randint(low, min(high, low + 4))))
    if name == "BRANCH":
        return drawn(rng, rng.choice(argument[1]))
    return drawn(rng, argument[3])  # a group


def _is_in(sign: str, name: str, argument: Any) -> bool:
    if name == "NOT_LITERAL":
        return ord(sign) != argument
    negated = str(argument[0][0]) == "NEGATE"
    found = False
    for op, value in argument[negated:]:
        kind = str(op)
        found |= kind == "LITERAL" and ord(sign) == value
        found |= kind == "RANGE" and value[0] <= ord(sign) <= value[1]
        found |= kind == "CATEGORY" and bool(re.match(r"\s", sign))
    return found != negated


@pytest.mark.parametrize("seed", range(4))
def test_what_matches_names_its_stage_and_is_read_without_a_repair(seed: int) -> None:
    rng, parsed, calls = Random(seed), re._parser.parse(TURN), 0  # type: ignore[attr-defined]
    for _ in range(250):
        text = drawn(rng, parsed)
        assert re.fullmatch(TURN, text)
        stage, _, call = parse_turn(text)
        assert stage is not None and text.startswith(f"## {stage.capitalize()}"), text
        assert ("<tool_call>" in text) == (call is not None), text
        assert call is None or (isinstance(call, ToolCall) and not call.repairs), (text, call)
        calls += call is not None
    assert 60 < calls < 190


@pytest.mark.parametrize("name", ["exec", "edit", "skill", "submit"])
def test_a_good_turn_matches(name: str) -> None:
    written = EXAMPLE[name].replace('"answer": "..."', '"answer": "...", "answer_kind": "math"')
    turn = f"## Check\nIs 3 < 4? Yes.\n<tool_call>\n{written}\n</tool_call>"
    assert re.fullmatch(TURN, turn) and not re.fullmatch(TURN, turn + turn)
    assert re.fullmatch(TURN, "## Draft\nFind $\\frac{1}{2} + a_{i}$ for [1, 2].\n\nSo the sum counts.")
    assert re.fullmatch(TURN, f"## Check\n<tool_call>\n{written}\n</tool_call>")
    assert re.fullmatch(TURN, "## Draft\nA baker sells rolls.") and not re.fullmatch(TURN, "A baker sells rolls.")
