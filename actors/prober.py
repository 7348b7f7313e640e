"""The prober: how often a solver that sees the statement alone gets a problem right, rho(q).

Consumes accepted problems; produces a Probe each, from n samples under one fixed decoding: all at once, or `first` of
them and the rest only where these do not show that the problem is solved, and easy. It waits for the solver engine of
the asked rung and for the sandbox that compares formulas, each time within `timeout_s`.

A sample without an answer (no box; for code, no code block) is wrong: the solver did not answer. A sample whose answer
cannot be compared is unknown: it is counted apart, and widens the interval instead of moving the estimate.
"""

from __future__ import annotations

from typing import Any

from actors.answers.completions import judge_completions
from actors.answers.values import Judgement
from actors.calls import SolverPool
from actors.episode import turn_seed
from actors.execution import Executor
from actors.passk import easy, estimate
from pipeline import config
from pipeline.records import Failure, Probe, Problem


class Prober:
    """A Serve replica. `solvers`: the pool of each rung of the ladder, by model path."""

    def __init__(self, config: config.ProberConfig, solvers: dict[str, SolverPool], sandbox: Any):
        self._config = config
        self._solvers = solvers
        self._executor = Executor(sandbox.run_batch.remote)
        self._counts = {"problems": 0, "samples": 0, "spared": 0, "correct": 0, "unknown": 0}

    async def probe(self, problem: Problem, prober: str, seed: int, enough: int = 1) -> Probe:
        """`enough`: right ones of the first samples that are more than a guess explains; fewer end no probe early.

        Raises Failure: an unknown rung, an engine without an answer, or fewer than k samples that can be judged."""
        c = self._config
        if prober not in self._solvers:
            raise Failure(f"prober {prober!r} is not on the ladder; expected one of {', '.join(self._solvers)}")
        outcomes, tokens, solution = await self._sampled(problem, prober, c.at_first, seed)
        right, judged = outcomes.count("equal"), len(outcomes) - outcomes.count("unknown")
        decided = judged >= c.k and right >= enough and easy(len(outcomes), right, c.easy)
        if len(outcomes) < c.n and not decided:
            seed = turn_seed(seed, c.n, len(outcomes))
            more, cost, later = await self._sampled(problem, prober, c.n - len(outcomes), seed)
            outcomes, tokens, solution = outcomes + more, tokens + cost, solution if solution is not None else later
        correct, wrong, unknown = (outcomes.count(o) for o in ("equal", "different", "unknown"))
        spared = c.n - len(outcomes)
        counts = {"problems": 1, "samples": len(outcomes), "spared": spared, "correct": correct, "unknown": unknown}
        for name, count in counts.items():
            self._counts[name] += count
        found = estimate(problem.id, correct, wrong, unknown, c.k, prober)
        return found.model_copy(update={"spared": spared, "tokens": tokens, "solution": solution})

    async def _sampled(
        self, problem: Problem, prober: str, n: int, seed: int
    ) -> tuple[list[Judgement], int, str | None]:
        """What each of n samples is worth, their tokens, and the first that is right."""
        c = self._config
        counted = await self._solvers[prober].counted_answers(
            f"prober {prober}", c.timeout_s, problem.question, n, c.sampling, seed, problem.answer_kind
        )
        outcomes = await judge_completions([(problem, text) for text, _ in counted], self._executor)
        right = (text for (text, _), outcome in zip(counted, outcomes, strict=True) if outcome == "equal")
        return outcomes, sum(tokens for _, tokens in counted), next(right, None)

    async def stats(self) -> dict[str, float]:
        return {k: float(v) for k, v in self._counts.items()}
