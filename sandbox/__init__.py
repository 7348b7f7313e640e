"""Untrusted Python and C++, run behind walls.

    from sandbox import Slot, Request

    with Slot() as slot:                               # refuses to start below level `strong`
        result = slot.run(Request("print(6 * 7)"))     # Result(status='ok', stdout='42\\n', ...)
        result = slot.run(Request("x = 6 * 7", value="x"))            # result.value == 42: a claim, plain JSON
        verdicts = slot.judge_calls("def f(n): return n + 1", "f", [Case(args=(1,), expected=2)])
        verdicts = slot.judge_stdio("int main() { ... }", [Case(stdin="1", stdout="2")], language="c++")
        with slot.session() as session:
            session.run("x = 1"); session.run("print(x)")

A slot is one supervisor (this process) and one zygote (an exec'd, warm fork server); each run is a forked child that
walls itself in before it reads a byte of the program. `probe()` says what this machine offers. Nothing here raises for
what a program did: that is in `Result.status`. `SandboxUnavailable` is raised where the walls cannot be built.

Imports nothing of the rest of the project, nor Ray, nor torch.

Integers of up to MAX_INT_DIGITS digits are values; Python itself stops reading and writing them at 4,300, and of longer
ones a value has no more than MAX_INT_DIGITS digits in all.
"""

import sys

from .api import LEVELS, Case, Cell, Layer, Limits, Platform, Request, Result, SandboxUnavailable, Status, Verdict
from .claims import same, same_text
from .session import Session
from .slot import Slot
from .survey import probe

MAX_INT_DIGITS = 100_000
"""Both ways take time that grows with the square of the digits; this many take a tenth of a second."""
sys.set_int_max_str_digits(MAX_INT_DIGITS)

__all__ = [
    "LEVELS",
    "MAX_INT_DIGITS",
    "Case",
    "Cell",
    "Layer",
    "Limits",
    "Platform",
    "Request",
    "Result",
    "SandboxUnavailable",
    "Session",
    "Slot",
    "Status",
    "Verdict",
    "probe",
    "same",
    "same_text",
]
