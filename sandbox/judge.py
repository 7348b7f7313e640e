"""Judging a program by tests.

Invariant: the expected output never leaves this process. A run gets the input of one test and nothing of the others;
what it returns or prints is compared here, so ending early, faking a report or reading one's own memory gains nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from . import claims
from .api import Case, Limits, Request, Result, Verdict

Runner = Callable[[Request], Result]


def call(run: Runner, code: str, entry: str, case: Case, limits: Limits | None, tolerance: float) -> Verdict:
    result = run(Request(code, stdin=case.stdin, entry=entry, args=case.args, limits=limits))
    return _verdict(result, lambda: claims.same(result.value, case.expected, tolerance))


def script(run: Runner, code: str, case: Case, limits: Limits | None) -> Verdict:
    if case.stdout is None:
        raise ValueError("case.stdout: missing; a script is judged by what it prints")
    expected = case.stdout
    result = run(Request(code, stdin=case.stdin, limits=limits))
    return _verdict(result, lambda: claims.same_text(result.stdout, expected))


def _verdict(result: Result, right: Callable[[], bool]) -> Verdict:
    if result.status == "infra":
        return Verdict(None, result)
    return Verdict(result.status == "ok" and right(), result)
