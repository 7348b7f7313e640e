"""The prober: rho(q), how often a fixed solver solves a problem (PAPER, prober).

Consumes an accepted problem and the name of the prober that is in charge; asks that prober's engine pool for n answers
to the final statement, and nothing else, under fixed decoding; produces the unbiased Pass@k with its interval. It
waits for the engine and the sandbox within `timeout_s`.
"""

from __future__ import annotations

from typing import Any

from actors.answers import compare_many, extract_boxed
from actors.calls import answer
from actors.execution import Executor
from actors.passk import estimate
from pipeline import config
from pipeline.records import Failure, Probe, Problem


class Prober:
    """Serve replica. `solvers`: engine pools by the model path that names them in the ladder."""

    def __init__(self, config: config.Prober, solvers: dict[str, Any], sandbox: Any):
        self._config = config
        self._solvers = solvers
        self._executor = Executor(sandbox.run_batch.remote)

    async def probe(self, problem: Problem, prober: str, seed: int) -> Probe:
        """Raises Failure: infra_error if the engine fails, data_error if too few answers can be judged."""
        c = self._config
        if prober not in self._solvers:
            raise Failure(f"prober {prober!r}: not in prober.ladder ({', '.join(self._solvers)})")
        response = self._solvers[prober].answers.remote(problem.question, c.n, c.sampling, seed)
        texts: list[str] = await answer(response, f"prober {prober}", c.timeout_s)
        given = [a for a in map(extract_boxed, texts) if a is not None]
        outcomes = await compare_many([(problem.answer_kind, problem.answer, a) for a in given], self._executor)
        correct, unknown = outcomes.count("equal"), outcomes.count("unknown")
        return estimate(problem.id, correct, len(texts) - correct - unknown, unknown, c.k, prober)

    async def check_health(self) -> None:
        """Stateless: its engines and the sandbox have health checks of their own."""
