"""Answers that are programs: judged by tests in the sandbox, never by their text.

A check is one JSON object: `{"entry": "f", "args": [...], "expected": value}` calls a function, and
`{"stdin": text, "stdout": text}` runs a script. Each check is a run of its own with its own limits; what should come
out stays here and is compared here, so a program that ends early or prints a report of success gains nothing.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from actors.answers.values import Judgement
from actors.execution import Executor
from pipeline.records import Failure
from sandbox import Case, Limits, Request, Result, Verdict, judge

_TOLERANCE = 1e-9
MAX_CHECKS = 50


@dataclass(frozen=True)
class Report:
    """What a program made of each check, in order."""

    verdicts: tuple[Verdict, ...]

    @property
    def outcome(self) -> Judgement:
        """equal: passed all · different: failed one · unknown: the sandbox failed, or there was nothing to check."""
        passed = [v.passed for v in self.verdicts]
        if False in passed:
            return "different"
        return "equal" if passed and None not in passed else "unknown"


def extract_program(text: str) -> str | None:
    """The last fenced code block of a completion, or None."""
    blocks = re.findall(r"```[A-Za-z0-9+]*[ \t]*\n(.*?)```", text, re.DOTALL)
    return blocks[-1].strip() if blocks and blocks[-1].strip() else None


@dataclass(frozen=True)
class _Check:
    entry: str | None
    case: Case


def read_checks(checks: Sequence[str]) -> list[_Check]:
    """Raises Failure naming the first check that is none, or that there are too many."""
    if len(checks) > MAX_CHECKS:
        raise Failure(f"checks: {len(checks)}; expected at most {MAX_CHECKS}")
    return [_read(number, text) for number, text in enumerate(checks, start=1)]


def _read(number: int, text: str) -> _Check:
    try:
        fields = json.loads(text)
        if set(fields) == {"entry", "args", "expected"} and str(fields["entry"]).isidentifier():
            return _Check(fields["entry"], Case(args=tuple(fields["args"]), expected=fields["expected"]))
        if set(fields) == {"stdin", "stdout"} and all(isinstance(v, str) for v in fields.values()):
            return _Check(None, Case(stdin=fields["stdin"], stdout=fields["stdout"]))
    except (ValueError, TypeError, RecursionError):
        pass
    raise Failure(
        f"check {number}: {text[:80]!r}; expected a JSON object with entry, args, expected, or with stdin, stdout"
    )


def weakness(checks: Sequence[_Check]) -> str | None:
    """Why a program that solves nothing would pass: fewer than two different inputs, or one result for all of them."""
    inputs = {json.dumps([c.entry, c.case.args, c.case.stdin]) for c in checks}
    results = {json.dumps([c.case.expected, c.case.stdout]) for c in checks}
    if len(inputs) < 2:
        return f"{len(inputs)} different tests; expected two at least"
    return "all tests expect the same result" if len(results) < 2 else None


async def judge_code(program: str, checks: Sequence[str], executor: Executor, limits: Limits | None = None) -> Report:
    """Run a program against every check, side by side. Raises Failure for a check that cannot be read."""
    read = read_checks(checks)
    try:
        requests = [_request(program, check, limits) for check in read]
    except ValueError as e:  # not text the sandbox takes
        return Report(tuple(Verdict(False, Result("error", str(e))) for _ in read))
    results = await asyncio.gather(*(executor.run(request) for request in requests))
    return Report(tuple(_verdict(check, result) for check, result in zip(read, results, strict=True)))


def _request(program: str, check: _Check, limits: Limits | None) -> Request:
    if check.entry is None:
        return judge.script_request(program, check.case, limits)
    return judge.call_request(program, check.entry, check.case, limits)


def _verdict(check: _Check, result: Result) -> Verdict:
    if check.entry is None:
        return judge.script_verdict(result, check.case)
    return judge.call_verdict(result, check.case, _TOLERANCE)
