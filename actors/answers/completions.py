"""Is a completion right? By what it boxed, or, where the problem's answer is a program, by its program under the
problem's checks. A completion without either gave no answer: that is wrong, not unknown."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from actors.answers import compare_many
from actors.answers.code import called, judge_code
from actors.answers.replies import extract_boxed, extract_program
from actors.answers.values import Judgement
from actors.execution import Executor
from pipeline.records import Problem


async def judge_completions(answered: Sequence[tuple[Problem, str]], executor: Executor) -> list[Judgement]:
    """(problem, completion) -> outcome, in order. Raises Failure for a check that cannot be read."""
    outcomes: list[Judgement] = ["different"] * len(answered)
    boxed, programs = {}, {}
    for i, (problem, text) in enumerate(answered):
        if problem.answer_kind == "code":
            if (program := extract_program(text, called(problem.checks))) is not None:
                programs[i] = judge_code(program, problem.checks, executor)
        elif (given := extract_boxed(text)) is not None:
            boxed[i] = (problem.answer_kind, problem.answer, given)
    compared, reports = await asyncio.gather(
        compare_many(list(boxed.values()), executor), asyncio.gather(*programs.values())
    )
    for i, outcome in zip(boxed, compared, strict=True):
        outcomes[i] = outcome
    for i, report in zip(programs, reports, strict=True):
        outcomes[i] = report.outcome
    return outcomes
