"""What the symbolic and the executing verifier have in common: everything but the derivation itself.

Both read the controlled language, run their derivation in the sandbox, and hold what comes back against the
submitted answer. They share the reader, so a text that is not understood is flagged by both; they share nothing that
computes, so an error in one derivation shows as a disagreement.
"""

from __future__ import annotations

from actors.answers import compare_many
from actors.answers.notation import is_formula
from actors.answers.reading import read_value
from actors.answers.units import read_unit
from actors.answers.values import Number
from actors.execution import Executor
from actors.verifiers.base import Asked, abstention
from actors.verifiers.mini.controlled import Reading, Unread, flags_of, leaks, read
from pipeline.records import AnswerKind, Problem, Vote
from sandbox.api import Result


def read_or_flag(name: str, problem: Problem) -> Reading | Vote:
    """The problem's clauses, or the vote against a text that is none."""
    reading = read(problem.question)
    if isinstance(reading, Reading):
        return reading
    return rejection(name, reading, leaks(problem.question, problem.answer))


def rejection(name: str, unread: Unread, leaked: bool) -> Vote:
    flags = (unread.flag, "leaks_answer") if leaked else (unread.flag,)
    return Vote(verifier=name, valid=False, rationale=unread.reason, flags=flags)


async def conclude(
    name: str, problem: Problem, reading: Reading, asked: Asked, result: Result, executor: Executor
) -> Vote:
    """The vote that follows from a derivation's `{"answer": ...}` or `{"unsolvable": ...}`.

    A submitted answer that is neither a value nor a formula ("51 I think"), of another kind than the question asks for,
    or in another unit, is no answer to it: against. One that may be right but could not be compared is no reason to
    vote either way.
    """
    found = result.value
    if not result.ok or not isinstance(found, dict):
        cause = "infra_error" if result.status == "infra" else "data_error"
        return abstention(name, f"sandbox: {result.status} {result.reason}".strip(), cause)
    if "answer" not in found:
        reason = str(found.get("unsolvable", "no answer"))
        return Vote(verifier=name, valid=False, rationale=f"unsolvable: {reason}", flags=("unsolvable",))
    answer = str(found["answer"])
    kind = reading.answer_kind
    (judgement,) = await compare_many([(kind, answer, problem.answer)], executor)
    if judgement == "equal" and not _answers(reading, kind, problem):
        judgement = "different"
    flags = flags_of(reading, asked.active)
    if judgement == "unknown" and is_formula(problem.answer) and not flags:
        return abstention(
            name, f"found {answer}, cannot tell whether {problem.answer[:80]!r} is the same", "data_error"
        )
    reasons = (
        [f"found {answer}"] if judgement == "equal" else [f"found {answer}, submitted was {problem.answer[:80]!r}"]
    )
    return Vote(
        verifier=name,
        valid=judgement == "equal" and not flags,
        answer=answer,
        rationale="; ".join([*reasons, *flags.values()]),
        flags=tuple(flags),
        used_skills=tuple(sorted(reading.skills)),
        adherent="off_task" not in flags,
    )


def _answers(reading: Reading, kind: AnswerKind, problem: Problem) -> bool:
    """The submission has the kind and, if it names one, the unit that the question asks for: 5 km are no 5 m."""
    value = read_value(problem.answer)
    unit = value.unit if isinstance(value, Number) else None
    asked = reading.question.unit
    return problem.answer_kind == kind and (unit is None or (asked is not None and unit == read_unit(asked)))
