"""What a verifier is, and what verifiers of every kind say alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from pipeline.config import SamplingConfig
from pipeline.records import AnswerKind, Outcome, Problem, Vote
from sandbox.api import Request


@dataclass(frozen=True)
class Asked:
    """What the writer of a problem was asked for, which the problem is held against."""

    category: str | None
    """None: any."""
    offered: tuple[str, ...]
    """Ids of the skills offered. Where they do not go together, it is free which of the largest subsets is used."""
    active: tuple[str, ...]
    """Those that the writer kept: each of them is used."""
    intents: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    """What each skill offered asks of a solver, as far as it is known: (id, one line)."""


class Solvers(Protocol):
    """Whom a verifier without a model of its own may ask."""

    async def answers(
        self, what: str, timeout_s: float, question: str, n: int, sampling: SamplingConfig, seed: int, kind: AnswerKind
    ) -> list[str]:
        """`n` completions. Raises Failure, which names `what`, if there are none in time."""
        ...


class Verifier(Protocol):
    """Solves a problem from its statement in its own way, and votes. Made as
    `cls(name, settings, executor, solver)`: runs in the sandbox, and whom it may ask.

    It may raise or hang: the committee bounds it and records an abstention."""

    name: str
    derived: bool
    """How it gets its answer: by a derivation that either holds or does not (True), or by sampling (False); the
    committee's second audit turns on it."""
    timeout_s: float

    async def vote(self, problem: Problem, trace: str, asked: Asked, attempt: int) -> Vote:
        """`trace` is the agent's work, for those who can read it; `attempt` 1 is the second audit."""
        ...


@runtime_checkable
class Told(Protocol):
    """A verifier that asks a model."""

    def tell(self, prompts: Mapping[str, str]) -> None:
        """Take the prompts of the run's domain, by role, in place of those that its settings name."""
        ...


def abstention(name: str, reason: str, kind: str) -> Vote:
    """No vote, and why: infra_error (the tool failed), model_error (the model said nothing usable) or data_error."""
    outcome = Outcome.model_validate({"kind": kind, "reason": reason[:300]})
    return Vote(verifier=name, valid=None, rationale=reason[:300], outcome=outcome)


def call(code: str, args: tuple[object, ...] = ()) -> Request:
    """Run `solve(*args)` of a program."""
    return Request(code, entry="solve", args=args)
