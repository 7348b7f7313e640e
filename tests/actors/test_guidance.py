"""Whatever is sampled under the form of a turn is read as it stands."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import guidance
from actors.chat import parse_turn
from actors.guidance import TURN
from actors.tool_calls import EXAMPLE, ToolCall

CALLS = st.sampled_from(guidance.CALLS).flatmap(lambda form: st.from_regex(form, fullmatch=True))
LINES = st.lists(st.from_regex(guidance.LINE, fullmatch=True), max_size=3)


@settings(max_examples=80)
@given(st.sampled_from(["Draft", "Check", "Refine", "Finalize"]), LINES, st.none() | CALLS)
def test_what_matches_names_its_stage_and_is_read_without_a_repair(stage: str, lines: list[str], call: str) -> None:
    """Of the parts, for the whole is a large expression to draw from."""
    text = "\n".join([f"## {stage}", *lines])
    if call is not None:
        text += f'\n<tool_call>\n{{"name": {call}}}\n</tool_call>'
    assert re.fullmatch(TURN, text)
    named, _, read = parse_turn(text)
    assert named == stage.lower() and (read is None) == (call is None)
    assert read is None or (isinstance(read, ToolCall) and not read.repairs)


@pytest.mark.parametrize("name", ["exec", "edit", "skill", "submit"])
def test_a_good_turn_matches(name: str) -> None:
    written = EXAMPLE[name].replace('"answer": "..."', '"answer": "...", "answer_kind": "math"')
    turn = f"## Check\nIs 3 < 4? Yes.\n<tool_call>\n{written}\n</tool_call>"
    assert re.fullmatch(TURN, turn) and not re.fullmatch(TURN, turn + turn)
    assert re.fullmatch(TURN, "## Draft\nFind $\\frac{1}{2} + a_{i}$ for [1, 2].\n\nSo the sum counts.")
    assert re.fullmatch(TURN, f"## Check\n<tool_call>\n{written}\n</tool_call>")
    assert re.fullmatch(TURN, "## Draft\nA baker sells rolls.") and not re.fullmatch(TURN, "A baker sells rolls.")
