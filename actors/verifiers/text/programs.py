"""Problems whose answer is a program: what the verifiers that can judge them (program, model) have in common.

The submission brings its tests and a program. `unfit` holds the one against the other, without asking any model: tests
that cannot be read, that a constant would pass, or that the submitted program itself fails are no problem. `tried` then
runs programs that were written from the statement alone. One that passes all tests confirms the submission; one that
runs through and gives something else has an answer of its own, which is what it did (so that two programs have the
same answer if they did the same); one that breaks off has none.

The symbolic and the executing verifier read the controlled language, which has no such problems: they reject them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from actors.answers import Judgement
from actors.answers.code import Report, judge_code, read_checks, weakness
from actors.execution import Executor
from actors.verifiers.base import abstention
from pipeline.records import Failure, Problem, Vote


async def unfit(name: str, problem: Problem, executor: Executor) -> Vote | None:
    """The vote against a submission that its own tests refute, an abstention where the sandbox failed, or None."""
    try:
        weak = weakness(read_checks(problem.checks))
    except Failure as e:
        return Vote(verifier=name, valid=False, rationale=str(e), flags=("underspecified",))
    if weak is not None:
        return Vote(verifier=name, valid=False, rationale=weak, flags=("trivial",))
    report = await judge_code(problem.answer, problem.checks, executor)
    if report.outcome == "unknown":
        return abstention(name, "sandbox: the tests could not be run", "infra_error")
    if report.outcome == "different":
        number = next(i for i, v in enumerate(report.verdicts, start=1) if v.passed is False)
        reason = f"the submitted program fails its own test {number}"
        return Vote(verifier=name, valid=False, rationale=reason, flags=("unsolvable",))
    return None


async def tried(problem: Problem, programs: Sequence[str], executor: Executor) -> list[tuple[str, Judgement]]:
    """What the programs that ran through every test did, and whether it is what the tests expect."""
    reports = await asyncio.gather(*(judge_code(p, problem.checks, executor) for p in programs))
    return [(_behaviour(r), r.outcome) for r in reports if all(v.result.ok for v in r.verdicts)]


def _behaviour(report: Report) -> str:
    return json.dumps([[v.result.value, v.result.stdout.split()] for v in report.verdicts])
