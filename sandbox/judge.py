"""Judging a program by tests.

Invariant: the expected output never leaves this process. A run gets the input of one test and nothing of the others;
what it returns or prints is compared here, so ending early, faking a report or reading one's own memory gains nothing.
"""

from __future__ import annotations

from . import claims
from .api import Case, Limits, Request, Result, Verdict


def call_request(code: str, entry: str, case: Case, limits: Limits | None) -> Request:
    return Request(code, stdin=case.stdin, entry=entry, args=case.args, limits=limits)


def call_verdict(result: Result, case: Case, tolerance: float) -> Verdict:
    return _verdict(result, result.ok and claims.same(result.value, case.expected, tolerance))


def script_request(code: str, case: Case, limits: Limits | None, language: str = "python") -> Request:
    if not isinstance(case.stdout, str):
        said = "missing" if case.stdout is None else type(case.stdout).__name__
        raise ValueError(f"case.stdout: {said}; expected a string: a script is judged by what it prints")
    return Request(code, stdin=case.stdin, limits=limits, language=language)


def script_verdict(result: Result, case: Case, tolerance: float = 0.0) -> Verdict:
    return _verdict(result, result.ok and claims.same_text(result.stdout, case.stdout or "", tolerance))


def _verdict(result: Result, passed: bool) -> Verdict:
    return Verdict(None if result.status == "infra" else passed, result)
