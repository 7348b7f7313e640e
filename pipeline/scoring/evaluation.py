"""Judging a solver's completions, the score Mean@k over a benchmark, and the gain from one model to another.

Invariant: a completion is right only if its answer is judged equal; without an answer it is wrong, and so it is with
one that cannot be read, or saying nothing definite would beat being wrong. Only where the sandbox failed, an answer
that could not be judged counts as neither, and is reported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from actors.answers.completions import judge_completions
from actors.answers.values import Judgement
from actors.execution import Executor
from pipeline.records import Failure, Problem
from pipeline.scoring.statistics import mean, t_interval


async def judge(problems: Sequence[Problem], completions: Sequence[str], executor: Executor) -> list[Judgement]:
    """Each completion against its problem; unknown: the sandbox failed meanwhile."""
    failed = executor.failed
    outcomes = await judge_completions(list(zip(problems, completions, strict=True)), executor)
    return ["different" if o == "unknown" and executor.failed == failed else o for o in outcomes]


def score(rows: Sequence[dict[str, Any]], outcomes: Sequence[Sequence[Judgement]]) -> dict[str, Any]:
    """Mean@k: the mean over problems of the share of right samples, with a 95 % interval, and by category and steps.

    `items`: the share of each problem, in the order of the rows. A problem of which no sample could be judged is left
    out, and has null there. Raises Failure if that is so of all.
    """
    items = [_share(group) for group in outcomes]
    scored = [(row, share) for row, share in zip(rows, items, strict=True) if share is not None]
    if not scored:
        raise Failure(f"evaluate: none of the answers to {len(rows)} problems could be judged", "infra_error")
    shares = [share for _, share in scored]
    spread = math.sqrt(sum((s - mean(shares)) ** 2 for s in shares) / max(len(shares) - 1, 1) / len(shares))

    def by(field: str) -> dict[str, float]:
        names = sorted({str(row[field]) for row, _ in scored if field in row})
        return {n: mean([s for row, s in scored if field in row and str(row[field]) == n]) for n in names}

    return {
        "mean": mean(shares),
        "interval": [max(0.0, mean(shares) - 1.96 * spread), min(1.0, mean(shares) + 1.96 * spread)],
        "by_category": by("category"),
        "by_steps": by("steps"),
        "unknown": sum(o == "unknown" for group in outcomes for o in group),
        "items": items,
    }


def _share(outcomes: Sequence[Judgement]) -> float | None:
    known = [float(o == "equal") for o in outcomes if o != "unknown"]
    return mean(known) if known else None


def paired(before: Sequence[float | None], after: Sequence[float | None]) -> dict[str, Any]:
    """The gain from one model to another on the same problems, each compared with itself: what a problem is hard for
    both cancels, so that the interval (Student's, 95 %, over the differences) is narrower than that of two means of
    different problems. `items`: compared, `better`, `worse`: of them by the sign of the difference. A problem that one
    of the two has no share of is left out."""
    differences = [b - a for a, b in zip(before, after, strict=True) if a is not None and b is not None]
    interval = t_interval(differences)
    return {
        "gain": mean(differences),
        "interval": list(interval) if interval else None,
        "items": len(differences),
        "better": sum(d > 0 for d in differences),
        "worse": sum(d < 0 for d in differences),
    }
