"""Answers that are programs: judged by tests in the sandbox, never by their text.

A check is one JSON object: `{"entry": "f", "args": [...], "expected": value}` calls a function, or the method of that
name of a class Solution, and `{"stdin": text, "stdout": text}` runs a script. Each check is a run of its own with its
own limits; what should come out stays here and is compared here, so a program that ends early or prints a report of
success gains nothing.

Integers and text must be the same. Where a float is expected, a number within 1e-6 of it, relative or absolute, is the
same; `"tolerance": 1e-9` in a check says otherwise, and given with a script's it holds for the decimals printed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass

from actors.answers.values import Judgement
from actors.execution import Executor
from pipeline.records import Failure
from sandbox import Case, Limits, Request, Result, Verdict, judge

_TOLERANCE = 1e-6
_SCRIPT_TOLERANCE = 0.0
MAX_CHECKS = 1_000
AT_ONCE = 50
"""Checks that run side by side; those that come after a failed one are not run."""

_CALLED = """\
import collections, functools, heapq, itertools, math, operator, random, re, string
from bisect import *
from collections import *
from functools import cache, cmp_to_key, lru_cache, partial, reduce
from heapq import *
from itertools import *
from math import ceil, comb, factorial, floor, gcd, inf, isqrt, lcm, log, log2, pi, prod, sqrt
from typing import *
globals().pop({entry!r}, None)
exec(compile({program!r}, "program.py", "exec", dont_inherit=True), globals())
if {entry!r} not in globals() and "Solution" in globals():
    {entry} = getattr(Solution(), {entry!r})
"""
"""A program that is called, with the names that those who write one take for granted."""


@dataclass(frozen=True)
class Report:
    """What a program made of each check, in order, as far as they were run."""

    verdicts: tuple[Verdict, ...]

    @property
    def outcome(self) -> Judgement:
        """equal: passed all · different: failed one · unknown: the sandbox failed, or there was nothing to check."""
        passed = [v.passed for v in self.verdicts]
        if False in passed:
            return "different"
        return "equal" if passed and None not in passed else "unknown"


@dataclass(frozen=True)
class _Check:
    entry: str | None
    case: Case
    tolerance: float


def read_checks(checks: Sequence[str]) -> list[_Check]:
    """Raises Failure naming the first check that is none, or that there are too many."""
    if len(checks) > MAX_CHECKS:
        raise Failure(f"checks: {len(checks)}; expected at most {MAX_CHECKS}")
    return [_read(number, text) for number, text in enumerate(checks, start=1)]


def _read(number: int, text: str) -> _Check:
    try:
        fields = json.loads(text)
        json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()  # what JSON cannot say, no program can return
        called = "entry" in fields
        tolerance = fields.pop("tolerance", _TOLERANCE if called else _SCRIPT_TOLERANCE)
        if not isinstance(tolerance, int | float) or isinstance(tolerance, bool) or not 0 <= tolerance < 1:
            raise Failure(f"check {number}: tolerance {tolerance!r}; expected a number from 0 to below 1")
        if set(fields) == {"entry", "args", "expected"} and _can_be_called(fields["entry"], fields["args"]):
            return _Check(fields["entry"], Case(args=tuple(fields["args"]), expected=fields["expected"]), tolerance)
        if set(fields) == {"stdin", "stdout"} and all(isinstance(v, str) for v in fields.values()):
            return _Check(None, Case(stdin=fields["stdin"], stdout=fields["stdout"]), tolerance)
    except (ValueError, TypeError, AttributeError, RecursionError):
        pass
    raise Failure(
        f"check {number}: {text[:80]!r}; expected a JSON object with entry, args, expected, or with stdin, stdout, and "
        "tolerance if the decimals have one"
    )


def _can_be_called(entry: object, args: object) -> bool:
    return isinstance(entry, str) and entry.isidentifier() and isinstance(args, list)


def called(checks: Sequence[str]) -> frozenset[str]:
    """The names that the checks call."""
    return frozenset(check.entry for check in read_checks(checks) if check.entry is not None)


def weakness(checks: Sequence[_Check]) -> str | None:
    """Why a program that solves nothing would pass: fewer than two different inputs, or one result for all of them."""
    inputs = {json.dumps([c.entry, c.case.args, c.case.stdin]) for c in checks}
    results = {json.dumps([c.case.expected, c.case.stdout]) for c in checks}
    if len(inputs) < 2:
        return f"{len(inputs)} different tests; expected two at least"
    return "all tests expect the same result" if len(results) < 2 else None


async def judge_code(program: str, checks: Sequence[str], executor: Executor, limits: Limits | None = None) -> Report:
    """Run a program against the checks, until one fails. Raises Failure for a check that cannot be read."""
    read = read_checks(checks)
    try:
        requests = [_request(program, check, limits) for check in read]
    except ValueError as e:  # not text the sandbox takes
        return Report(tuple(Verdict(False, Result("error", str(e))) for _ in read))
    verdicts: list[Verdict] = []
    for start in range(0, len(read), AT_ONCE):
        results = await asyncio.gather(*(executor.run(request) for request in requests[start : start + AT_ONCE]))
        verdicts += map(_verdict, read[start : start + AT_ONCE], results)
        if any(verdict.passed is False for verdict in verdicts):
            break
    return Report(tuple(verdicts))


def _request(program: str, check: _Check, limits: Limits | None) -> Request:
    if check.entry is None:
        return judge.script_request(program, check.case, limits)
    program = _CALLED.format(program=program, entry=check.entry)
    return judge.call_request(program, check.entry, check.case, limits)


def _verdict(check: _Check, result: Result) -> Verdict:
    if check.entry is None:
        return judge.script_verdict(result, check.case, check.tolerance)
    return judge.call_verdict(result, check.case, check.tolerance)
