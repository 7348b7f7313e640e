"""Whatever is sampled under the form of a turn is read as it stands."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.chat import parse_turn
from actors.guidance import TURN
from actors.tool_calls import EXAMPLE, ToolCall


@settings(max_examples=150)
@given(st.from_regex(TURN, fullmatch=True))
def test_what_matches_names_its_stage_and_is_read_without_a_repair(text: str) -> None:
    stage, _, call = parse_turn(text)
    assert stage is not None and text.startswith(f"## {stage.capitalize()}\n")
    assert ("<tool_call>" in text) == (call is not None)
    assert call is None or (isinstance(call, ToolCall) and not call.repairs)


@pytest.mark.parametrize("name", ["exec", "edit", "skill", "submit"])
def test_a_good_turn_matches(name: str) -> None:
    written = EXAMPLE[name].replace('"answer": "..."', '"answer": "...", "answer_kind": "math"')
    turn = f"## Check\nIs 3 < 4? Yes.\n<tool_call>\n{written}\n</tool_call>"
    assert re.fullmatch(TURN, turn) and not re.fullmatch(TURN, turn + turn)
    assert re.fullmatch(TURN, "## Draft\nFind $\\frac{1}{2} + a_{i}$ for [1, 2].\n\nSo the sum counts.")
    assert re.fullmatch(TURN, f"## Check\n<tool_call>\n{written}\n</tool_call>")
    assert re.fullmatch(TURN, "## Draft\nA baker sells rolls.") and not re.fullmatch(TURN, "A baker sells rolls.")
