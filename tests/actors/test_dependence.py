"""Does the output of a check follow from the problem's numbers? Each code of this table is run, by this test itself."""

import asyncio

import pytest

from actors.dependence import dependence, numbers_of
from pipeline.records import Problem, ToolResult

QUESTION = "Mia has 12 coins. Then Mia has 31 times as many. Mia packs them in rows of 5 and keeps the rest. How many?"
PRELUDE = "def share(x, a):\n    if x % a: raise ValueError\n    return x // a\n"


def found(codes, question=QUESTION, answer="2", kind="math"):
    space: dict = {}

    async def run(code):
        shown: list[str] = []
        space["print"] = lambda *x: shown.append(" ".join(map(str, x)))
        try:
            exec(PRELUDE + code, space)
        except Exception as e:
            return ToolResult(tool="exec", status="error", content=str(e))
        return ToolResult(tool="exec", status="ok", content="\n".join(shown))

    async def work():
        outputs = [(await run(code)).content for code in codes]
        return await dependence(codes, outputs, Problem.make(question, answer, kind), run)

    return asyncio.run(work())


@pytest.mark.parametrize(
    "code",
    [
        "print(12 * 31 % 5)", "x = 12\nx = x * 31\nprint(x % 5)", "a, b, c = 12, 31, 5\nprint((a * b) % c)",
        "print(int('12') * int('31') % 5)", "x = [12, 31]\nprint(x[0] * x[1] % 5)", "print(f'{12 * 31 % 5}')",
    ],
)  # fmt: skip
def test_work_depends(code):
    assert found([code]) == [True]


@pytest.mark.parametrize(
    "code",
    [
        "print(2 + 0 * 0)", "print(2 + 0 * (12 * 31 * 5))", "x = 12 * 31 % 5\nprint(2)", "print([2][0 * 12 * 31])",
        "print(2 if 12 * 31 > 0 else 3)", "print(2 + (12 - 12) + (31 - 31))", "assert 12 * 31 == 372\nprint(2)",
        "print(2 + len([12, 31, 5]) * 0)", "print(1 + 1)", "s = '12 31 5'\nprint(s and 2)",
        "print(max(2, 12 * 0 * 31))", "not Python (",
    ],
)  # fmt: skip
def test_show_does_not(code):
    assert found([code]) == [False]


def test_a_division_that_other_numbers_break_still_depends():
    question = "Mia has 12 coins. Mia splits them evenly into 4 bags and keeps one bag. How many?"
    assert found(["print(share(12, 4))"], question, "3") == [True]


def test_a_cell_depends_through_what_an_earlier_one_has_set():
    assert found(["x = 12 * 31", "print(x % 5)"])[1] is True
    assert found(["x = 12 * 31 * 5", "print(2)"]) == [False, False]


def test_where_nothing_can_be_changed_nothing_is_said():
    assert found(["print(1 + 1)"], "How many sides has a triangle?", "3") == [None]
    assert found(["print(12)"], kind="code") == [None]


def test_numbers_are_read_as_they_are_written():
    assert numbers_of("1,000 and 2.5 of 7, 7 and x3 or 12.") == [1000, 2.5, 7, 12]
