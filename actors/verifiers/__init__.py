"""Verifiers: each solves a problem from its statement in its own way, and votes.

A verifier is one file with a class `async vote(problem, trace, active, attempt) -> Vote` and an entry here. `derived`
says how it gets its answer: by a derivation that either holds or does not (True), or by sampling (False); the
committee's second audit turns on it. A verifier may raise or hang: the committee bounds it and records an abstention.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from actors.execution import Executor
from actors.verifiers.mini.executing import ExecutingVerifier
from actors.verifiers.mini.symbolic import SymbolicVerifier
from actors.verifiers.text.model import ModelVerifier
from actors.verifiers.text.program import ProgramVerifier
from pipeline import config
from pipeline.records import Problem, Vote


class Verifier(Protocol):
    name: str
    derived: bool
    timeout_s: float

    async def vote(self, problem: Problem, trace: str, active: Sequence[str], attempt: int) -> Vote:
        """`trace` is the agent's work, for those who can read it; `attempt` 1 is the second audit."""
        ...


def make(section: config.Verifier, index: int, executor: Executor, solver: Any | None) -> Verifier:
    """The verifier of a config section; `index` tells two of one kind apart."""
    name = f"{section.kind}-{index}"
    if isinstance(section, config.SymbolicVerifier):
        return SymbolicVerifier(name, section, executor)
    if isinstance(section, config.ExecutingVerifier):
        return ExecutingVerifier(name, section, executor)
    if isinstance(section, config.ProgramVerifier):
        return ProgramVerifier(name, section, executor)
    return ModelVerifier(name, section, executor, solver)
