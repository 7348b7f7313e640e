"""Judging a solver's completions, and the score Mean@k over a benchmark.

Invariant: a completion is right only if its boxed answer is judged equal; without a boxed answer it is wrong, and so it
is with one that cannot be read, or saying nothing definite would beat being wrong. Only where the sandbox failed, an
answer that could not be judged counts as neither, and is reported.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from actors.answers import compare_many, extract_boxed, infer_kind
from actors.execution import Executor
from pipeline.context import mean
from pipeline.records import Failure

Judged = Literal["equal", "different", "unknown"]


async def judge(expected: Sequence[str], completions: Sequence[str], executor: Executor) -> list[Judged]:
    """Each completion against its expected answer; unknown: the sandbox failed meanwhile."""
    given = [extract_boxed(text) for text in completions]
    boxed = [i for i, g in enumerate(given) if g is not None]
    pairs = [(infer_kind(expected[i]), expected[i], given[i] or "") for i in boxed]
    outcomes: list[Judged] = ["different"] * len(completions)
    failed = executor.failed
    for i, outcome in zip(boxed, await compare_many(pairs, executor), strict=True):
        if outcome == "equal" or executor.failed > failed:
            outcomes[i] = outcome
    return outcomes


def read_benchmark(path: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """The first `limit` rows (all without one) of a JSONL of question and answer (category and steps where known).

    Raises Failure naming the file and line of a row that is none.
    """
    rows: list[dict[str, Any]] = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as e:
        raise Failure(f"evaluate.benchmark {path}: {e}; expected a readable JSONL file") from None
    for number, line in enumerate(lines, start=1):
        if len(rows) == limit:
            break
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            rows.append({**row, "question": _text(row["question"]), "answer": _text(row["answer"])})
        except (ValueError, KeyError, TypeError, RecursionError):
            raise Failure(f'{path}:{number}: expected {{"question": …, "answer": …}}') from None
    if not rows:
        raise Failure(f"evaluate.benchmark {path}: holds no problem")
    return rows


def _text(value: object) -> str:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise TypeError
    return str(value)


def score(rows: Sequence[dict[str, Any]], outcomes: Sequence[Sequence[Judged]]) -> dict[str, Any]:
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
    }
