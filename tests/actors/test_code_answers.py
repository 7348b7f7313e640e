from __future__ import annotations

import asyncio
import json

import pytest

from actors.answers.code import judge_code, read_checks
from actors.answers.completions import judge_completions
from actors.answers.replies import extract_program
from actors.execution import Executor
from pipeline.records import Failure, Problem
from sandbox import Limits, Result

CALLS = [json.dumps({"entry": "f", "args": [n], "expected": n * n}) for n in (0, 3, -4)]
SCRIPT = [json.dumps({"stdin": "3 4\n", "stdout": "7\n"}), json.dumps({"stdin": "1 1\n", "stdout": "2"})]
QUICK = Limits(wall_s=1.0, cpu_s=1.0)


@pytest.fixture(scope="module")
def executor_of(pool):
    return lambda: Executor(pool.run_batch.remote)


def run(executor_of, program, checks):
    async def main():
        return await judge_code(program, checks, executor_of(), QUICK)

    return asyncio.run(main())


@pytest.mark.parametrize(
    "program, checks, passed, outcome",
    [
        ("def f(n): return n * n", CALLS, [True, True, True], "equal"),
        ("def f(n): return n * abs(n)", CALLS, [True, True, False], "different"),
        ("def f(n): return float(n * n)", CALLS, [True, True, True], "equal"),
        ("def f(n):\n    while n == 3: pass\n    return n * n", CALLS, [True, False, True], "different"),
        ("def f(n): return [0] * 10**9 if n else 0", CALLS, [True, False, False], "different"),
        ("def g(n): return n * n", CALLS, [False, False, False], "different"),
        ("import os\ndef f(n): os._exit(0)", CALLS, [False, False, False], "different"),
        (
            "class E:\n    def __eq__(self, o): return True\ndef f(n): return E()",
            CALLS,
            [False, False, False],
            "different",
        ),
        ("print(sum(map(int, input().split())))", SCRIPT, [True, True], "equal"),
        ("print('7')", SCRIPT, [True, False], "different"),
        ("syntax error here", SCRIPT, [False, False], "different"),
        ("def f(n): return n * n", [], [], "unknown"),
    ],
)
def test_programs_are_judged_check_by_check(executor_of, program, checks, passed, outcome):
    report = run(executor_of, program, checks)
    assert [v.passed for v in report.verdicts] == passed and report.outcome == outcome


def test_a_sandbox_that_fails_leaves_it_unknown():
    async def run_batch(requests):
        return [Result("infra")] * len(requests)

    report = asyncio.run(judge_code("def f(n): return n * n", CALLS, Executor(run_batch)))
    assert report.outcome == "unknown" and [v.passed for v in report.verdicts] == [None] * 3


@pytest.mark.parametrize(
    "check",
    [
        "",
        "[]",
        "5",
        '{"entry": "f"}',
        '{"entry": "f g", "args": [], "expected": 1}',
        '{"stdin": 1, "stdout": ""}',
        '{"entry": "f", "args": [], "expected": NaN}',
        '{"entry": "f", "args": [[-Infinity]], "expected": 1}',
        '{"entry": "f", "args": [1e999], "expected": 1}',
        '{"entry": "f", "args": ["\\ud800"], "expected": 1}',
        '{"entry": true, "args": [], "expected": 1}',
        '{"entry": "f", "args": "ab", "expected": 1}',
        '{"entry": "f", "args": {"a": 1}, "expected": 1}',
        '{"stdin": "", "stdout": "\\udfff"}',
    ],
)
def test_a_check_that_is_none_is_named(check):
    with pytest.raises(Failure, match=r"check 2: .*expected a JSON object"):
        read_checks([CALLS[0], check])


def test_the_last_code_block_is_the_program():
    assert extract_program("a\n```python\nx = 1\n```\nb\n```\ny = 2\n```") == "y = 2"
    assert extract_program("no code") is None and extract_program("```python\n\n```") is None


def test_a_completion_is_judged_as_its_problem_asks(executor_of):
    """Programs by the checks of their problem, other answers by what is boxed."""
    square = Problem.make("Square a number: f(n).", "def f(n): return n**2", "code", CALLS)
    add = Problem.make("Add two numbers.", "print(sum(map(int, input().split())))", "code", SCRIPT)
    count = Problem.make("How many?", "49")
    root = Problem.make("Which?", r"\sqrt{2}")
    script = "```python\na, b = map(int, input().split())\nprint(a + b)\n```"
    judged = [
        (square, "```python\ndef f(n): return n * n\n```", "equal"),
        (count, r"\boxed{49}", "equal"),
        (square, "```python\ndef f(n): return n\n```", "different"),
        (add, script, "equal"),
        (square, script, "different"),
        (square, "def f(n): return n * n", "different"),
        (square, r"\boxed{def f(n): return n**2}", "different"),
        (root, r"\boxed{2^{1/2}}", "equal"),
        (count, "```python\n49\n```", "different"),
    ]

    async def main():
        return await judge_completions([(problem, text) for problem, text, _ in judged], executor_of())

    assert asyncio.run(main()) == [outcome for *_, outcome in judged]
