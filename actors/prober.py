"""The prober: how often a solver that sees the statement alone gets a problem right, rho(q).

Consumes accepted problems; produces a Probe each, from n samples under one fixed decoding. It waits for the solver
engine of the asked rung and for the sandbox that compares formulas, both within `timeout_s`.

A sample without an answer (no box; for code, no code block) is wrong: the solver did not answer. A sample whose answer
cannot be compared is unknown: it is counted apart, and widens the interval instead of moving the estimate.
"""

from __future__ import annotations

from typing import Any

from actors.answers.completions import judge_completions
from actors.calls import SolverPool
from actors.execution import Executor
from actors.passk import estimate
from pipeline import config
from pipeline.records import Failure, Probe, Problem


class Prober:
    """A Serve replica. `solvers`: the pool of each rung of the ladder, by model path."""

    def __init__(self, config: config.ProberConfig, solvers: dict[str, SolverPool], sandbox: Any):
        self._config = config
        self._solvers = solvers
        self._executor = Executor(sandbox.run_batch.remote)
        self._counts = {"problems": 0, "samples": 0, "correct": 0, "unknown": 0}

    async def probe(self, problem: Problem, prober: str, seed: int) -> Probe:
        """Raises Failure: an unknown rung, an engine without an answer, or fewer than k samples that can be judged."""
        c = self._config
        if prober not in self._solvers:
            raise Failure(f"prober {prober!r} is not on the ladder; expected one of {', '.join(self._solvers)}")
        texts = await self._solvers[prober].answers(
            f"prober {prober}", c.timeout_s, problem.question, c.n, c.sampling, seed, problem.answer_kind
        )
        outcomes = await judge_completions([(problem, text) for text in texts], self._executor)
        correct, wrong, unknown = (outcomes.count(o) for o in ("equal", "different", "unknown"))
        for name, count in (("problems", 1), ("samples", len(texts)), ("correct", correct), ("unknown", unknown)):
            self._counts[name] += count
        return estimate(problem.id, correct, wrong, unknown, c.k, prober)

    async def stats(self) -> dict[str, float]:
        return {k: float(v) for k, v in self._counts.items()}
