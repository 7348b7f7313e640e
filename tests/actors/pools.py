"""Real classes of the pools behind handles that need no Ray: `handle.method.remote(...)` is a coroutine."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from actors.calls import SolverPool
from actors.sandbox_pool import SandboxPool
from sandbox.api import Result


def handle(target: Any, *methods: str) -> Any:
    return SimpleNamespace(**{m: SimpleNamespace(remote=getattr(target, m)) for m in methods})


def sandbox(slots: int = 2) -> tuple[SandboxPool, Any]:
    pool = SandboxPool(slots=slots, queue=1 << 16)  # room for all: who waits for some ties it to his event loop
    return pool, handle(pool, "run_batch")


def solver_pool(target: Any, asks_endpoint: bool = False) -> SolverPool:
    return SolverPool(handle(target, "answers", "counted_answers"), asks_endpoint)


async def no_sandbox(requests: Sequence[Any]) -> list[Result]:
    """In place of `run_batch`: nothing is run."""
    return [Result("infra", "none here")] * len(requests)


class Boxes:
    """A solver whose completions are given: the same for every question, repeated to n."""

    def __init__(self, *given: str | None, answers: tuple[str | None, ...] = ()):
        self.completions = ["no answer" if a is None else f"thinking\n\\boxed{{{a}}}" for a in (*given, *answers)]
        self.asked: list[tuple[str, int, int]] = []

    async def answers(self, question: str, n: int, sampling: Any, seed: int, kind: str = "math") -> list[str]:
        self.asked.append((question, n, seed))
        return [self.completions[i % len(self.completions)] for i in range(n)]

    async def counted_answers(self, *asked: Any) -> list[tuple[str, int]]:
        return [(text, len(text.split())) for text in await self.answers(*asked)]
