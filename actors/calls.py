"""Calls from one actor to another: each has a deadline, and whatever goes wrong comes out as a `Failure`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar

from ray.exceptions import ObjectLostError, RayActorError, RayError, RayTaskError, WorkerCrashedError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentResponse

from actors.queueing import queueing
from pipeline.config import SamplingConfig
from pipeline.records import AnswerKind, Failure, Halt, Lost

T = TypeVar("T")
_GONE = (RayActorError, ObjectLostError, WorkerCrashedError)


async def within(response: Awaitable[T], what: str, timeout_s: float | None) -> T:
    """Await a Serve response or an object reference; without a deadline only where the callee keeps its own. A request
    that nobody waits for any more is cancelled in its replica.

    Raises what the callee raised, if that is a Failure or Halt; Lost if its process is gone; else an infra_error. Of an
    actor that raised as it began, Ray keeps the text alone, whose last line is the cause.
    """
    try:
        return await asyncio.wait_for(response, timeout_s)
    except asyncio.CancelledError:
        _cancel(response)
        raise
    except (TimeoutError, RayError, RayServeException) as e:
        if timeout_s is not None and not isinstance(e, RayError | RayServeException):  # a callee's has Ray's type, too
            _cancel(response)
            raise Failure(f"{what}: no answer within {timeout_s:g} s", "infra_error") from None
        cause = e.cause if isinstance(e, RayTaskError) else e
        if isinstance(cause, Failure | Halt):
            raise cause from None
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [""]
        if isinstance(cause, RayActorError) and cause.actor_init_failed:
            raise Failure(f"{what}: cannot begin: {lines[-1]}", "infra_error") from e
        first = lines[0]
        kind = Lost if isinstance(cause, _GONE) else Failure
        raise kind(f"{what}: {type(cause).__name__}: {first}", "infra_error") from e


def _cancel(response: Awaitable[Any]) -> None:
    if isinstance(response, DeploymentResponse):
        response.cancel()


@dataclass(frozen=True)
class SolverPool:
    """A pool of solvers, and who keeps the deadline of a question."""

    handle: Any
    asks_endpoint: bool = False
    """Its replicas keep the deadline of each call themselves: what waits for its turn there has none here."""

    async def answers(
        self, what: str, timeout_s: float, question: str, n: int, sampling: SamplingConfig, seed: int, kind: AnswerKind
    ) -> list[str]:
        """`n` completions, of an engine within `timeout_s`. Raises as `within` does."""
        texts: list[str] = await self._asked(self.handle.answers, what, timeout_s, question, n, sampling, seed, kind)
        return texts

    async def counted_answers(
        self, what: str, timeout_s: float, question: str, n: int, sampling: SamplingConfig, seed: int, kind: AnswerKind
    ) -> list[tuple[str, int]]:
        """The same, each with the number of its tokens."""
        counted: list[tuple[str, int]] = await self._asked(
            self.handle.counted_answers, what, timeout_s, question, n, sampling, seed, kind
        )
        return counted

    async def _asked(self, method: Any, what: str, timeout_s: float, *question: Any) -> Any:
        response = method.remote(*question)
        if not self.asks_endpoint:
            return await within(response, what, timeout_s)
        with queueing():
            return list(await within(response, what, None))
