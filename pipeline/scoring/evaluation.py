"""Judging a solver's completions, and the score Mean@k over a benchmark.

Invariant: a completion is right only if its answer is judged equal; without an answer it is wrong, and so it is with
one that cannot be read, or saying nothing definite would beat being wrong. Only where the sandbox failed, an answer
that could not be judged counts as neither, and is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.answers.completions import judge_completions
from actors.answers.values import Judgement
from actors.execution import Executor
from pipeline.records import Failure, Problem
from pipeline.scoring.statistics import interval_of_mean, mean


async def judge(problems: Sequence[Problem], completions: Sequence[str], executor: Executor) -> list[Judgement]:
    """Each completion against its problem; unknown: the sandbox failed meanwhile."""
    failed = executor.failed
    outcomes = await judge_completions(list(zip(problems, completions, strict=True)), executor)
    return ["different" if o == "unknown" and executor.failed == failed else o for o in outcomes]


def score(rows: Sequence[dict[str, Any]], outcomes: Sequence[Sequence[Judgement]]) -> dict[str, Any]:
    """Mean@k: the mean over problems of the share of right samples, with a 95 % interval, and by category and steps.

    A problem of which no sample could be judged is left out. Raises Failure if that is so of all.
    """
    scored = [
        (row, mean([float(o == "equal") for o in group if o != "unknown"]))
        for row, group in zip(rows, outcomes, strict=True)
        if any(o != "unknown" for o in group)
    ]
    if not scored:
        raise Failure(f"evaluate: none of the answers to {len(rows)} problems could be judged", "infra_error")
    shares = [share for _, share in scored]

    def by(field: str) -> dict[str, float]:
        names = sorted({str(row[field]) for row, _ in scored if field in row})
        return {n: mean([s for row, s in scored if field in row and str(row[field]) == n]) for n in names}

    return {
        "mean": mean(shares),
        "interval": interval_of_mean(shares, 0.0, 1.0) or [shares[0], shares[0]],
        "by_category": by("category"),
        "by_steps": by("steps"),
        "unknown": sum(o == "unknown" for group in outcomes for o in group),
    }
