r"""What a program that was to return all answers has found: one answer, a fault of the problem, or nothing.

Invariant: a program's word is a claim, read and never run here. A list of answers is one answer if all its members are
the same; a list of values that are no texts may be meant as one answer, and is read as one where it is the submitted
one. A program that breaks off has found nothing: only what it says itself about the problem is a fault of that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import combinations

from actors.answers import compare_many
from actors.execution import Executor
from pipeline.config import Flag
from pipeline.records import Problem
from sandbox.api import Request, Result

MAX_ANSWERS = 8
"""Of one program that are compared; more say the same: the statement has several."""
_MAX_CHARS = 2_000


@dataclass(frozen=True)
class Finding:
    answer: str | None = None
    flag: Flag | None = None
    """The fault of the problem that the program found."""
    said: str = ""
    """Its word for the fault, or why there is nothing."""


_LATEX = {ord(control): "\\" + letter for control, letter in zip("\a\b\f\r\t\v", "abfrtv", strict=True)}
"""A program that writes "\\frac" with one backslash returns a form feed and "rac"."""

_CALL = """

def _text_(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value, key=str) if isinstance(value, (set, frozenset)) else value
        return "[" + ", ".join(map(_text_, items)) + "]"
    return str(value)

def _answers_():
    if not callable(globals().get("solve")):
        return None
    found = solve()
    if found is None:
        return {"answers": None}
    if isinstance(found, dict) and isinstance(found.get("answers"), (list, tuple)):
        found = found["answers"]
    if not isinstance(found, (list, tuple, set, frozenset)):
        return {"answers": [_text_(found)], "whole": None}
    members = sorted(found, key=str) if isinstance(found, (set, frozenset)) else list(found)
    whole = None if all(isinstance(m, str) for m in members) else _text_(found)
    return {"answers": [_text_(m) for m in members[:9]], "whole": whole}
"""
"""Behind the program, in the sandbox: what solve() returns as text, sympy's numbers and fractions alike."""


def request(program: str) -> Request:
    """The run of a program that ends in what `read` takes."""
    return Request(program + _CALL, entry="_answers_")


async def read(result: Result, problem: Problem, executor: Executor) -> Finding:
    """What the run found."""
    if not result.ok:
        return _raised(result)
    value = result.value
    if not isinstance(value, dict):  # it defines no solve(): what it printed last counts
        printed = result.stdout.strip().rpartition("\n")[2].strip()
        return _one(printed)
    if not isinstance(value.get("answers"), list):
        return Finding(said="solve() returned nothing")
    answers = [a.strip("\n ").translate(_LATEX)[:_MAX_CHARS] for a in value["answers"] if isinstance(a, str)]
    whole = value.get("whole")
    if not answers:
        return Finding(flag="unsolvable", said="no answer satisfies the statement")
    if len(answers) == 1:
        return _one(answers[0])
    if isinstance(whole, str):
        (meant,) = await compare_many([(problem.answer_kind, problem.answer, whole)], executor)
        if meant == "equal":
            return _one(whole)
    pairs = list(combinations(answers[:MAX_ANSWERS], 2))
    outcomes = await compare_many([(problem.answer_kind, a, b) for a, b in pairs], executor)
    if "different" in outcomes:
        return Finding(flag="ambiguous", said=f"several answers: {'; '.join(answers)[:200]}")
    if "unknown" in outcomes:
        return Finding(said=f"cannot tell whether these are one answer: {'; '.join(answers)[:200]}")
    return _one(answers[0])


def _one(answer: str) -> Finding:
    return Finding(answer=answer) if answer else Finding(said="an empty answer")


_FAULTS: tuple[tuple[Flag, str], ...] = (
    (
        "underspecified",
        r"under-?specified|under-?determined|\bmissing\b|not (?:given|stated|specified|enough (?:info|data|fact))|"
        r"insufficient|unspecified|incomplete|cannot be determined",
    ),
    (
        "ambiguous",
        r"ambiguous|ambiguity|(?:several|multiple|more than one|infinitely many|two|three|\d+) (?:\w+ )?"
        r"(?:answers?|solutions?|values?|readings?|possib\w+|interpretations?|roots?)|not unique|non-?unique|"
        r"no unique|isn't unique",
    ),
    (
        "unsolvable",
        r"unsolvable|impossible|inconsistent|contradict|no (?:\w+ ){0,2}(?:answers?|solutions?|values?|integers?|"
        r"numbers?|roots?)\b|none (?:exists?|satisf)|does not exist|no such|ill-?posed",
    ),
)
_OWN = re.compile(r"\s*(?:ValueError|RuntimeError|Exception|AssertionError|ArithmeticError)\b:?\s*(.*)", re.DOTALL)

_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
"""What Python's own messages quote of a value is no word of the program's."""


def _raised(result: Result) -> Finding:
    """An error that says what is wrong with the problem is a finding; any other is the program's own."""
    own = _OWN.match(result.reason) if result.status == "error" else None
    said = _QUOTED.sub("", own[1]) if own else ""
    for flag, words in _FAULTS:
        if own and re.search(words, said, re.IGNORECASE):
            return Finding(flag=flag, said=own[1][:200])
    return Finding(said=f"{result.status} {result.reason}".strip()[:200])
