"""The author as its own judge: what was handed in is valid, and its answer is right. A control without any check."""

from __future__ import annotations

from actors.execution import Executor
from actors.verifiers.base import Asked, Solvers
from pipeline import config
from pipeline.records import Problem, Vote


class AuthorVerifier:
    derived = False

    def __init__(self, name: str, section: config.AuthorVerifierConfig, executor: Executor, solver: Solvers | None):
        self.name = name
        self.timeout_s = section.timeout_s

    async def vote(self, problem: Problem, trace: str, asked: Asked, attempt: int) -> Vote:
        return Vote(verifier=self.name, valid=True, answer=problem.answer, rationale="its author says so")
