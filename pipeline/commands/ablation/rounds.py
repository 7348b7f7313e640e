"""Rounds: a proposer is trained and writes, a solver learns from that, and probes the next round's problems.

    proposer n-1 ──mgpo──► proposer n ──synthesize──► data set n ──solve──► solver n ──evaluate──► score n
                    ▲                        ▲                        │
                    └──── solver n-1 probes ─┘                        └──► probes round n+1, and is its base

What a label is worth follows from the gate that lets a problem in: with the proposer's own answer as the truth a round
teaches the errors of the one before it, and the solver that agrees with them pays for more. The domain knows the truth,
so the share of labels that are right is exact.

Invariant: gates differ in the committee and in nothing else; both begin with the same proposer and the same solver.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

from pipeline import stages
from pipeline.commands.ablation.grid import Budget
from pipeline.domains.base import Attack
from pipeline.flow.context import Context
from pipeline.scoring import problems
from pipeline.scoring.statistics import mean
from pipeline.store.manifest import verified

ROUND = {
    "problems": "in the data set",
    "label_accuracy": "share of them whose answer is the right one",
    "sound": "share of them that are well-posed, right, on task and without an idle step",
    "yield_per_1k": "problems with a right label for each 1,000 tokens that episodes and probes sampled",
    "pass_rate": "share of the prober's samples that agree with the label",
    "score": "Mean@k of the solver, after the round",
}
"""What is told of a round."""
METRICS = {
    "label_accuracy": "share of right labels in the last round's data set",
    "label_change": "the same, less that of the first round",
}
"""What two gates are compared by, beside their last solver."""
_NO_LABEL = frozenset({"ill_posed", "wrong"})
"""Faults by which a problem has no answer, or another one."""


def settings(before: dict[str, Any] | None) -> tuple[str, ...]:
    """Overrides of a round, by the result of the one before it."""
    if before is None:
        return ()
    return tuple(f"{field}={json.dumps(before['solver'])}" for field in ("prober.ladder.0.path", "solve.base.path"))


async def play(context: Context, budget: Budget) -> dict[str, Any]:
    """One round, of a run whose `sft` names the proposer that it begins with: what `ROUND` names, `before`, the score
    of the solver that it began with, and the checkpoints of its `proposer` and `solver`. A data set without a row
    leaves the solver as it was."""
    c = context.config
    given = context.config.synthesize.model_copy(update=budget.settings)
    context = replace(context, config=c.model_copy(update={"synthesize": given}))
    trained = await stages.run(context, "mgpo")
    written = await stages.run(context, "synthesize")
    found = {
        "problems": written["accepted"],
        "validity": written["validity"],
        "tokens": written["tokens"],
        "pass_rate": written["mean_pass_rate"],
        **await asyncio.to_thread(_truth, context, written["tokens"]),
        "proposer": trained["checkpoint"],
    }
    if not written["accepted"]:
        return found | {"solver": c.solve.base.path, "before": None, "score": None}
    solved = await stages.run(context, "solve")
    scores = await stages.run(context, "evaluate")
    return found | {
        "solver": solved["checkpoint"], "before": scores["before"]["mean"], "score": scores["after"]["mean"],
    }  # fmt: skip


def _truth(context: Context, tokens: int) -> dict[str, Any]:
    """What the domain says of the data set's rows. Raises Failure where it knows no truth."""
    adversary, folder = context.domain.adversary(), context.run.path("dataset")
    lines = verified(folder / "provenance.jsonl").read_text(encoding="utf-8").splitlines()
    rows = problems.read(verified(folder / "problems.jsonl")) if lines else []
    faults = []
    for row, line in zip(rows, lines, strict=True):
        problem, origin = problems.of_row(row), json.loads(line)
        asked = Attack("row", origin["category"], tuple(origin["skills"]), problem.question, problem.answer)
        faults.append(adversary.faults(asked, problem))
    right = [not (found & _NO_LABEL) for found in faults]
    return {
        "label_accuracy": mean([float(r) for r in right]) if right else None,
        "sound": mean([float(not found) for found in faults]) if faults else None,
        "yield_per_1k": 1000 * sum(right) / max(tokens, 1),
    }


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Of `METRICS`, and the last `solver`'s score."""
    first, last = rounds[0]["label_accuracy"], rounds[-1]["label_accuracy"]
    return {
        "label_accuracy": last,
        "label_change": None if first is None or last is None else last - first,
        "solver": next((r["score"] for r in reversed(rounds) if r["score"] is not None), None),
    }
