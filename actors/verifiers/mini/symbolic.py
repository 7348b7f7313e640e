"""The symbolic verifier: the clauses of a problem, worked out with exact sympy values and dimensions in the sandbox."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actors.execution import Executor
from actors.verifiers.base import Asked, call
from actors.verifiers.mini import derivation
from pipeline import config
from pipeline.records import Problem, Vote

_PROGRAM = (Path(__file__).parent / "symbolic_program.py").read_text()


class SymbolicVerifier:
    derived = True

    def __init__(self, name: str, section: config.SymbolicVerifierConfig, executor: Executor, solver: Any | None):
        self.name = name
        self.timeout_s = section.timeout_s
        self._executor = executor

    async def vote(self, problem: Problem, trace: str, asked: Asked, attempt: int) -> Vote:
        reading = derivation.read_or_flag(self.name, problem)
        if isinstance(reading, Vote):
            return reading
        clauses = [(c.rule, c.numbers, c.unit) for c in (reading.opening, *reading.steps, reading.question)]
        result = await self._executor.run(call(_PROGRAM, (clauses,)))
        return await derivation.conclude(self.name, problem, reading, asked, result, self._executor)
