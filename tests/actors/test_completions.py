# ruff: noqa: E501 - a case to a line
"""What a completion says: its visible part, its last box, its last program; and any text at all has an outcome."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.answers.code import judge_code
from actors.answers.completions import judge_completions
from actors.answers.replies import extract_boxed, extract_program, visible
from actors.execution import Executor
from pipeline.records import Problem
from pipeline.scoring.evaluation import judge
from sandbox import Result, claims

ADD_ONE = "def f(n):\n    return n + 1"
CHECKS = [json.dumps({"entry": "f", "args": [n], "expected": n + 1}) for n in (2, -1)]


def outcomes(pool, problem, texts):
    async def main():
        return await judge_completions([(problem, text) for text in texts], Executor(pool.run_batch.remote))

    return asyncio.run(main())


# ---------------------------------------------------------------- the visible part


@pytest.mark.parametrize(
    "text, boxed",
    [
        (r"<think>Try \boxed{4}. Wait, check again", None),
        (r"<think>maybe \boxed{5}</think>The answer is 4.", None),
        (r"<think>maybe \boxed{5}</think>So \boxed{4}", "4"),
        (r"maybe \boxed{5}</think>So \boxed{4}", "4"),  # the prompt had opened it
        (r"maybe \boxed{5}</think>So it is 4", None),
        (r"<think>a</think>\boxed{3}<think>or \boxed{4}</think>", "3"),
        (r"\boxed{3} <think>or rather \boxed{4}", "3"),
        (r"<THINK>\boxed{1}</THINK>\boxed{2}", "2"),
        (r"<thinking>\boxed{1}</thinking>\boxed{2}", "2"),
        ("<think>```python\nx = 1\n</think>" + r"\boxed{2}", "2"),  # a block that the reasoning never closed
        (r"I think \boxed{2} < 3", "2"),
        (r"It is $\boxed 4$", "4"), (r"It is \boxed 42.", "42"), (r"\boxed4", "4"), (r"$\boxed -7$", "-7"), (r"\boxed", None),
        (r"\boxed{\{1\}\\}", r"\{1\}\\"), (r"\boxed{a\\}", r"a\\"), (r"\boxed {\frac{1}{2}}", r"\frac{1}{2}"),
    ],
)  # fmt: skip
def test_the_box_that_counts(text, boxed):
    assert extract_boxed(text) == boxed


@given(st.text(max_size=40), st.text(max_size=40), st.sampled_from(["<think>", ""]))
def test_reasoning_says_nothing_whatever_is_in_it(thought, shown, opened):
    plain = [t.replace("<", "(").replace("`", "'").replace("~", "-") for t in (thought, shown)]
    assert visible(f"{opened}{plain[0]}</think>{plain[1]}") == plain[1]
    assert visible(f"{plain[1]}<think>{plain[0]}") == plain[1]
    assert visible(plain[1]) == plain[1]


# ---------------------------------------------------------------- programs

FENCED = [
    f"```python\n{ADD_ONE}\n```",
    f"```python\n{ADD_ONE}\n```\nExample output:\n```text\n3\n```",
    f"```python\n{ADD_ONE}\n```\nOutput:\n```\n3\n```",
    f"```python\n{ADD_ONE}\n```\nRun it:\n```bash\npython a.py\n```",
    f"```python\n{ADD_ONE}\n```\nUse it:\n```python\nprint(f(2))\n```",
    f'```python title="a.py"\n{ADD_ONE}\n```',
    f"```{{.python .numberLines}}\n{ADD_ONE}\n```",
    f"```Python3\n{ADD_ONE}\n```",
    f"```python\r\n{ADD_ONE}\r\n```\r\n".replace("\n    ", "\r\n    "),
    f"~~~python\n{ADD_ONE}\n~~~",
    f"~~~~\n{ADD_ONE}\n~~~~",
    "1. So:\n   ```python\n   def f(n):\n       return n + 1\n   ```",
    f"````python\n{ADD_ONE}\n````",
    f"Draft:\n```python\ndef f(n):\n    return n\n```\nBetter:\n```python\n{ADD_ONE}\n```",
    f"```python\n{ADD_ONE}",  # cut off after its last line
    f"<think>```python\ndef f(n): return n\n```</think>\n```python\n{ADD_ONE}\n```",
    f"```python\ndef f(n): return n\n```</think>\n```python\n{ADD_ONE}\n```",
    f"```python\n{ADD_ONE}\n\nprint('</think>', f(1))\n```",
    "```python\nclass Solution:\n    def f(self, n: int) -> int:\n        return n + 1\n```",
    "```python\nfrom __future__ import annotations\ndef f(n: Optional[int]) -> List[int]:\n    return math.floor(n + 1)\n```",
    "```python\nf = lambda n: n + 1\n```",
]
NONE = [
    f"<think>```python\n{ADD_ONE}\n```",
    f"<think>```python\n{ADD_ONE}\n```</think>The function adds one.",
    ADD_ONE,
    f"```text\n{ADD_ONE}\n```",
    "```python\ndef f(n):\n    return n\n```",
    f"```python\n{ADD_ONE}\n```\nNo:\n```python\ndef f(n):\n    return n\n```",
    "```python\nclass Other:\n    def f(self, n): return n + 1\n```",
    "```python\n3\n```",
    "",
]


def test_the_program_that_counts(pool):
    problem = Problem.make("Add one: f(n).", ADD_ONE, "code", CHECKS)
    assert outcomes(pool, problem, FENCED) == ["equal"] * len(FENCED)
    assert outcomes(pool, problem, NONE) == ["different"] * len(NONE)


def test_the_names_that_programs_take_for_granted_are_no_answers(pool):
    """The call form brings typing, collections, math; it must not bring the function that was asked for."""
    gcd = Problem.make("gcd(a, b)", "...", "code", [json.dumps({"entry": "gcd", "args": [4, 6], "expected": 2})])
    found = outcomes(pool, gcd, ["```python\nx = 1\n```", "```python\nfrom math import gcd\n```"])
    assert found == ["different", "equal"]
    uses = "```python\nclass Solution:\n    def f(self, n: List[int]) -> int:\n        return sum(n)\n```"
    total = Problem.make("f", "...", "code", [json.dumps({"entry": "f", "args": [[1, 2]], "expected": 3})])
    tools = "```python\ndef f(n: Deque[int]):\n    return pow(sum(Counter(n).keys()), 1, 100) + int(math.sqrt(0))\n```"
    assert outcomes(pool, total, [uses, tools]) == ["equal", "equal"]


def test_a_script_may_print_what_looks_like_the_end_of_a_block():
    text = "```python\nprint('''\n```text\n''')\n```"
    assert extract_program(text) == "print('''\n```text\n''')"


@pytest.mark.parametrize(
    "expected, given, tolerance, passed",
    [
        (0.1, 0.1000001, None, True), (0.1, 0.10001, None, False), (0.1, 0.1000001, 1e-9, False), (3.0, 3, None, True),
        (3, 3.0000001, None, False), (3, 3.0, None, True), ("0.1", "0.1000001", None, False), ([1, 0.5], [1, 0.5000001], None, True),
        ([1, 0.5], [1.0000001, 0.5], None, False), (1e9, 1e9 + 100, None, True), (10**30, 10**30 + 1, None, False), (True, 1, None, False),
        (7**6000, 7**6000, None, True), (7**6000, 7**6000 + 1, None, False),
    ],
)  # fmt: skip
def test_floats_have_a_tolerance_and_nothing_else(pool, expected, given, tolerance, passed):
    check = {"entry": "f", "args": [], "expected": expected} | ({"tolerance": tolerance} if tolerance else {})

    async def main():
        return await judge_code(f"def f(): return {given!r}", [json.dumps(check)], Executor(pool.run_batch.remote))

    assert [v.passed for v in asyncio.run(main()).verdicts] == [passed]


@pytest.mark.parametrize(
    "expected, printed, tolerance, same",
    [
        ("a\nb", "a\nb\n", 0, True), ("a\nb", "a\r\nb  \n", 0, True), ("a\nb", "a b", 0, False),
        *((f"a{sign}b", "a\nb", 0, False) for sign in "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\r"),
        *((f"a{sign}", "a", 0, False) for sign in "\x0c\x1c\u2028"),
        ("0.5 x", "0.5000001 x", 0, False), ("0.5 x", "0.5000001  x", 1e-6, True), ("0.5 x", "0.5000001 y", 1e-6, False),
        ("5 x", "5.0000001 x", 1e-6, False), ("1e3", "1000.0000001", 1e-6, True), ("0.5", "nan", 1e-6, False), ("0.5 1", "0.5", 1e-6, False),
        ("0.5\n1", "0.5 1", 1e-6, False),
    ],
)  # fmt: skip
def test_lines_end_at_line_feeds_only(expected, printed, tolerance, same):
    assert claims.same_text(printed, expected, tolerance) is same


@given(st.text("ab \t\n\r\x0c\u2028", max_size=12), st.text("ab \t\n\r\x0c\u2028", max_size=12))
def test_outputs_are_equal_only_if_the_same_but_for_blanks_at_ends(a, b):
    if claims.same_text(a, b):
        assert a.split() == b.split()
        assert [a.count(sign) for sign in "ab\x0c\u2028"] == [b.count(sign) for sign in "ab\x0c\u2028"]


def test_many_checks_run_until_one_fails(pool):
    checks = [json.dumps({"entry": "f", "args": [n], "expected": n + 1}) for n in range(120)]

    async def main(program):
        return await judge_code(program, checks, Executor(pool.run_batch.remote))

    assert asyncio.run(main(ADD_ONE)).outcome == "equal"
    late = asyncio.run(main("def f(n): return n + 1 if n < 119 else 0"))
    assert late.outcome == "different" and len(late.verdicts) == 120
    early = asyncio.run(main("def f(n): return 0"))
    assert early.outcome == "different" and len(early.verdicts) < 120


# ---------------------------------------------------------------- any text

PIECES = st.sampled_from(
    ["\\boxed{", "}", "{", "$", "\\(", "<think>", "</think>", "```", "```python\n", "~~~", "\n", "\\frac", "^", "_", "1", "x",
     "0x", ":", ",", "[", "]", "(", ")", "\\text{", "\\overline{", " ", "**", "'", '"', "\\", "/", "=", "<", "e", "%", "km",
     "\x00", "\ud800", "²", "₂", "9" * 400, "−", "\\pm", "\\begin{pmatrix}", "&", "1e999", "…", "½", "10^"]
)  # fmt: skip
ANY = st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=20).map("".join))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.sampled_from(["math", "choice", "text", "code"]), ANY, ANY, st.booleans()), min_size=1, max_size=4
    )
)
def test_any_completion_has_an_outcome(given):
    async def run_batch(requests):
        return [Result("error", "not run here")] * len(requests)

    problems = [Problem.make("q", answer, kind, CHECKS if kind == "code" else ()) for kind, answer, _, _ in given]
    texts = [
        f"\\boxed{{{text}}}" if boxed else f"```python\n{text}\n```" if len(text) % 2 else text
        for _, _, text, boxed in given
    ]
    found = asyncio.run(judge(problems, texts, Executor(run_batch)))
    assert len(found) == len(texts) and set(found) <= {"equal", "different", "unknown"}


def test_some_hostile_completions_in_the_real_sandbox(pool):
    problem = Problem.make("q", r"\sqrt{2}", "math")
    texts = [
        rf"\boxed{{{text}}}"
        for text in ("9**9**9**9", "[" * 500, "\\frac{" * 50 + "}" * 50, "x^{" * 90 + "}" * 90, "\ud800")
    ]
    assert set(outcomes(pool, problem, texts)) <= {"different", "unknown"}
    program = Problem.make("q", ADD_ONE, "code", CHECKS)
    texts = [
        f"```python\n{text}\n```"
        for text in ("(" * 5000, "\x00", "while True: pass", "\ud800", "x = " + "-" * 9999 + "1")
    ]
    assert set(outcomes(pool, program, texts)) == {"different"}
