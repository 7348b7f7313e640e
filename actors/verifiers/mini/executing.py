"""The executing verifier: a plain Python program written from the clauses of a problem, run in the sandbox."""

from __future__ import annotations

from typing import Any

from actors.execution import Executor
from actors.verifiers.base import Asked, call
from actors.verifiers.mini import derivation
from actors.verifiers.mini.compiler import DoesNotFit, compile_program
from pipeline import config
from pipeline.records import Problem, Vote


class ExecutingVerifier:
    derived = True

    def __init__(self, name: str, section: config.ExecutingVerifierConfig, executor: Executor, solver: Any | None):
        self.name = name
        self.timeout_s = section.timeout_s
        self._executor = executor

    async def vote(self, problem: Problem, trace: str, asked: Asked, attempt: int) -> Vote:
        reading = derivation.read_or_flag(self.name, problem)
        if isinstance(reading, Vote):
            return reading
        try:
            program = compile_program(reading)
        except DoesNotFit as e:
            return Vote(verifier=self.name, valid=False, rationale=f"unsolvable: {e}", flags=("unsolvable",))
        result = await self._executor.run(call(program))
        return await derivation.conclude(self.name, problem, reading, asked, result, self._executor)
