"""Calls as models write them: read where a careful person could, on both sides of each line; text is data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.chat import parse_turn
from actors.tool_calls import Malformed, ToolCall, render, visible

SHARED = Path(__file__).parents[3] / "shared"


def wrap(inside: str) -> str:
    return f"## Check\n<tool_call>\n{inside}\n</tool_call>"


def code(inside: str) -> str | None:
    """What a turn runs; None where it holds no call. Fails where the call is malformed."""
    call = parse_turn(inside)[2]
    assert not isinstance(call, Malformed), call.message
    return None if call is None else call.arguments["code"]


def submitted(question: str, answer: str = "1") -> ToolCall | Malformed | None:
    """A `submit` whose strings stand in the JSON as they are given."""
    return parse_turn(wrap(f'{{"name": "submit", "arguments": {{"question": "{question}", "answer": "{answer}"}}}}'))[2]


def question(written: str) -> str:
    call = submitted(written)
    assert isinstance(call, ToolCall), call
    return call.arguments["question"]


def refused(written: str) -> str:
    call = submitted(written)
    assert isinstance(call, Malformed), call
    return call.message


# ---------------------------------------------------------------- LaTeX and control characters

COMMANDS = (
    *("frac", "beta", "binom", "bar", "times", "theta", "tan", "text{x}", "to", "tau", "nabla", "neq", "not=", "rho"),
    *("right)", "rangle", "sqrt", "alpha", "Theta", "underline", "uparrow", "le", "pi", "{", "}", ",", "!", "%", "$"),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_with_one_backslash_is_the_command_and_counted(command):
    call = submitted(f"Find \\{command} x.", f"\\{command}")
    assert isinstance(call, ToolCall) and call.repairs
    assert (call.arguments["question"], call.arguments["answer"]) == (f"Find \\{command} x.", f"\\{command}")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_with_two_backslashes_is_json(command):
    call = submitted(f"Find \\\\{command} x.")
    assert isinstance(call, ToolCall) and not call.repairs
    assert call.arguments["question"] == f"Find \\{command} x."


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r"One.\nTwo.", "One.\nTwo."),
        (r"One.\nu = 3", "One.\nu = 3"),
        (r"One:\ne = 3", "One:\ne = 3"),
        (r"$a \ne b$", r"$a \ne b$"),
        (r"Is $\\nu$ \\ne \nu?", "Is $\\nu$ \\ne \nu?"),
        (r"\nu is", r"\nu is"),
        (r"\(a \ni b\)", r"\(a \ni b\)"),
        (r"$\\$5 \tr(A)$", r"$\$5 \tr(A)$"),
        (r"a\r\nb", "a\nb"),
        (r"x\ty", "x   y"),
        ("x\ty", "x   y"),
        ("One.\nTwo.", "One.\nTwo."),
        (r"it\'s", "it's"),
        (r"\"x\" \/ \u00e9 \ud83d\ude00", '"x" / é 😀'),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
        (r"\\begin{pmatrix} 1 & 2 \\\\ 3 \\end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 \end{pmatrix}"),
    ],
)
def test_an_escape_is_what_it_can_only_be(written, read):
    assert question(written) == read


@pytest.mark.parametrize(
    "written", [r"x \ne 3", r"let \nu be", "a\x0cb", r"a\u0008b", r"a\f1 c", "a\x00b", r"a\u007fb", r"a\u0085b"]
)
def test_what_can_be_read_in_two_ways_or_says_nothing_is_answered_with_how_to_write_it(written):
    message = refused(written)
    assert '"question": ' in message and '"\\\\frac{1}{2}"' in message
    assert isinstance(parse_turn(message.partition("Example: ")[2])[2], ToolCall)


def test_code_keeps_its_line_breaks_and_tabs_and_the_backslashes_of_patterns():
    assert code(wrap(r'{"name": "exec", "arguments": {"code": "x = 1\nu = 2\nif x:\n\tprint(u)"}}')) == (
        "x = 1\nu = 2\nif x:\n\tprint(u)"
    )
    assert code(wrap(r'{"name": "exec", "arguments": {"code": "re.findall(r\"\bx\d+\", s)"}}')) == (
        r're.findall(r"\bx\d+", s)'
    )


plain_text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
lines = st.text(st.sampled_from("\\\nnutbfrei$ x{}\"'<>/"), min_size=1, max_size=30) | plain_text
any_code = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
calls = st.one_of(
    st.tuples(st.just("exec"), st.fixed_dictionaries({"code": (any_code | lines).filter(str.strip)})),
    st.tuples(
        st.just("submit"),
        st.fixed_dictionaries(
            {"question": lines.filter(str.strip), "answer": lines.filter(str.strip), "answer_kind": st.just("text"),
             "checks": st.lists(st.dictionaries(plain_text, st.integers() | any_code, max_size=2), max_size=2)}
        ),
    ),
    st.tuples(st.just("skill"), st.fixed_dictionaries({"id": any_code})),
    st.tuples(
        st.just("edit"),
        st.fixed_dictionaries({"drop": st.lists(any_code, min_size=1, max_size=2), "add": st.lists(any_code)}),
    ),
)  # fmt: skip


@settings(max_examples=250, deadline=None)
@given(calls, st.sampled_from(["## Check\nLet me see.\n", "", "<think>\nhm </tool_call> <tool_call>\n</think>\n"]))
def test_what_is_printed_is_read(given, before):
    name, arguments = given
    read = parse_turn(before + render(name, arguments))[2]
    expected = dict(arguments)
    if name == "submit":
        expected["checks"] = [json.dumps(check) for check in arguments["checks"]]
    assert read == ToolCall(name, expected) and read.repairs == ()


# ---------------------------------------------------------------- forms


@pytest.mark.parametrize(
    ("turn", "note"),
    [
        (wrap('{"name": "exec", "arguments": {"code": "print(1)"}}'), None),
        (wrap('```json\n{"name": "exec", "arguments": {"code": "print(1)"}}\n```'), "fence"),
        (wrap('{"name": "exec", "arguments": "{\\"code\\": \\"print(1)\\"}"}'), "arguments as text"),
        (wrap('{"name": "exec", "arguments": {"code": "print(1)",},}'), "comma"),
        (wrap('{"name": "exec", "arguments": {"code": "print(1)"}'), "brackets"),
        (wrap('{"name": "exec", "arguments": {"code": "print(1)"}}}'), "brackets"),
        (wrap("{'name': 'exec', 'arguments': {'code': 'print(1)'}}"), "quotes"),
        (wrap('[{"name": "exec", "arguments": {"code": "print(1)"}}]'), "form"),
        (wrap('{"name": "exec", "parameters": {"code": "print(1)"}}'), "form"),
        (wrap('{"name": "exec", "code": "print(1)"}'), "form"),
        (
            wrap('{"type": "function", "function": {"name": "exec", "arguments": "{\\"code\\": \\"print(1)\\"}"}}'),
            "form",
        ),
        (wrap("<function=exec>\n<parameter=code>\nprint(1)\n</parameter>\n</function>"), "form"),
        ("<function=exec>\n<parameter=code>\nprint(1)\n</parameter>\n</function>", "form"),
        (wrap("exec\n<arg_key>code</arg_key>\n<arg_value>print(1)</arg_value>"), "form"),
        ('[TOOL_CALLS] [{"name": "exec", "arguments": {"code": "print(1)"}}]', "form"),
        ('[TOOL_CALLS]exec[ARGS]{"code": "print(1)"}', "form"),
        ('<|python_tag|>{"name": "exec", "parameters": {"code": "print(1)"}}<|eom_id|>', "form"),
        ('Check: it\n```json\n{"name": "exec", "arguments": {"code": "print(1)"}}\n```', "form"),
        ('Check: it\n{"name": "exec", "arguments": {"code": "print(1)"}}', "form"),
        ('Tool call: {"name": "exec", "arguments": {"code": "print(1)"}}', "form"),
        ('## Check\n<tool_call>\n{"name": "exec", "arguments": {"code": "print(1)"}}', "end"),
    ],
)
def test_one_call_in_any_form(turn, note):
    call = parse_turn(turn)[2]
    assert call == ToolCall("exec", {"code": "print(1)"})
    assert isinstance(call, ToolCall) and ((note in call.repairs) if note else not call.repairs)


@pytest.mark.parametrize(
    "turn",
    [
        'A call is written as\n{"name": "exec", "arguments": {"code": "print(1)"}}\nand its result comes back.',
        '## Draft\nThe record {"name": "Ben", "age": 3} is kept.',
        '## Draft\nRead\n{"name": "Ben", "age": 3}',
        "I could use <function> here, or [tools].",
        "```python\nprint(1)\n```",
    ],
)
def test_what_only_speaks_of_calls_is_none(turn):
    assert parse_turn(turn)[2] is None


@pytest.mark.parametrize(
    ("turn", "says"),
    [
        (wrap('{"name": "exec", "arguments": {"code": "print(1)"}}') + wrap('{"name": "exec"}'), "more than one"),
        (wrap('[{"name": "exec"}, {"name": "exec"}]'), "more than one"),
        ('{"name": "exec", "arguments": {"code": "1"}}\n{"name": "exec", "arguments": {"code": "2"}}', "more than one"),
        (wrap('{"name": "exec", "arguments": {"code": "print("a")"}}'), "not JSON"),
        (wrap('{"name": "exec", "arguments": {"code": "print(1)"}} and so'), "more text behind the object"),
        (wrap('{"name": "submit", "arguments": {"question": "q", "answer": NaN}}'), "NaN is no number"),
        (wrap('{"name": "submit", "arguments": {"question": "q", "answer": %s}}' % ("9" * 200_000)), "too many digits"),
        ('Finalize:\n```json\n{"question": "q", "answer": "a"}\n```', 'no object with "name"'),
        ('{"name": "percent_change", "arguments": {"code": "1"}}', "no tool 'percent_change'"),
        ('## Check\n<tool_call>\n{"name": "exec", "arguments": {"code": "print(1)"', "without </tool_call>"),
        ("## Check\n<tool_call>\n<function=exec>\n<parameter=code>\nprint(1)", "without </tool_call>"),
    ],
)
def test_a_call_that_is_none_says_why(turn, says):
    call = parse_turn(turn)[2]
    assert isinstance(call, Malformed) and says in call.message and len(call.message) < 500


# ---------------------------------------------------------------- private parts

CALL = '<tool_call>\n{"name": "exec", "arguments": {"code": "print(1)"}}\n</tool_call>'
TAGGED = CALL.replace("print(1)", "print('</think> <tool_call> </tool_call>')")


@pytest.mark.parametrize(
    ("turn", "stage", "runs"),
    [
        (f"## Check\n{TAGGED}", "check", "print('</think> <tool_call> </tool_call>')"),
        (f"<think>\n{CALL}\n</think>\n## Check\nAgain.", "check", None),
        (f"<think>\n{TAGGED}\n</think>\n## Check\n{CALL}", "check", "print(1)"),
        (f"I call\n{CALL}\n</think>\n## Check\nAgain.", "check", None),
        (f"<think>I call\n{CALL}", None, None),
        (f"## Check\n{CALL}\n<think>and then", "check", "print(1)"),
        (f"## Check\n<think>so</think>\n{CALL}", "check", "print(1)"),
        (f'<think>a <tool_call> is "{{"</think>\n## Check\n{CALL}', "check", "print(1)"),
        ("<think>\n<tool_call>\n{\"name\": \n</think>\n## Refine\nNo.", "refine", None),
        (wrap("<function=exec>\n<parameter=code>\n'</think>'\n</parameter>\n</function>"), "check", "'</think>'"),
    ],
)  # fmt: skip
def test_what_is_thought_is_not_said_and_what_is_in_a_string_is_text(turn, stage, runs):
    assert parse_turn(turn)[0] == stage
    assert code(turn) == runs


# ---------------------------------------------------------------- headers


@pytest.mark.parametrize(
    ("turn", "stage", "body"),
    [
        ("Check:", "check", ""),
        ("Check", "check", ""),
        ("Stage: check", "check", ""),
        ("Draft: compose the problem.\n\nMia has 3.", "draft", "compose the problem.\n\nMia has 3."),
        ("### Check: verify it\n\nYes.", "check", "verify it\n\nYes."),
        ("## Check the sum\nYes.", "check", "the sum\nYes."),
        ("**Refine**\nBetter.", "refine", "Better."),
        ("**Finalise:** done", "finalize", "done"),
        ("**Stage:** draft\nMia", "draft", "Mia"),
        ("Sure, here it is.\n\n## Draft\nMia has 3.", "draft", "Sure, here it is.\n\n\nMia has 3."),
        ("Check the sum again.", None, "Check the sum again."),
        ("Drafting: x", None, "Drafting: x"),
        ("## Drafting\nx", None, "## Drafting\nx"),
        ("I check: yes", None, "I check: yes"),
    ],
)
def test_a_stage_is_named_with_or_without_marks(turn, stage, body):
    assert parse_turn(turn)[:2] == (stage, body)


def test_a_header_inside_a_call_names_no_stage():
    assert parse_turn(CALL.replace("print(1)", "# x\\n## Check\\n1"))[0] is None


# ---------------------------------------------------------------- any text

PIECES = (
    *("<tool_call>", "</tool_call>", "<think>", "</think>", "{", "}", '"', "'", "\\", "\n", '"name": "exec"', "```"),
    *(
        '"arguments": ',
        "<function=exec>",
        "<parameter=code>",
        "[TOOL_CALLS]",
        "##",
        "Check",
        ":",
        ",",
        "\ud800",
        "\x0c",
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=120) | st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
def test_any_turn_has_an_outcome(text):
    stage, body, call = parse_turn(text)
    assert stage in (None, "draft", "check", "refine", "finalize") and isinstance(body, str)
    assert call is None or isinstance(call, ToolCall | Malformed)
    assert isinstance(visible(text), str)


@pytest.mark.parametrize(
    "piece", ['"', "<tool_call>{", '"\\', "#", "<tool_call>", "{", "*_", "```", " ", "\n{", "'\\", ",  "]
)
def test_a_long_text_of_one_piece_is_read_in_time(piece):
    parse_turn(f"<tool_call>{piece * 5_000}")
    parse_turn(piece * 5_000)


def test_the_shared_turns_are_read():
    path = SHARED / "cases" / "turns.jsonl"
    if not path.is_file():
        pytest.skip("no shared cases here")
    for row in map(json.loads, path.read_text().splitlines()):
        call = parse_turn(row["turn"])[2]
        if row["want"] == "no call":
            assert call is None
        else:
            assert isinstance(call, ToolCall), row["name"]
            assert not any(c in str(call.arguments.get("question")) for c in "\t\f\b\r")
