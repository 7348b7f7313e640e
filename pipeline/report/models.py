"""What was measured on the benchmark, a row a model, and how each compares with those before it.

Invariant: samples that were cut off, that gave no answer and that nobody could judge are told apart; a figure that an
earlier version did not write is a dash.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.report.charts import number, text
from pipeline.report.facts import Facts
from pipeline.report.pieces import table

_COUNTS = ("samples", "truncated", "no_answer", "unknown")
_HEADS = ("model", "mean", "95 % interval", "Best-of-n", "Maj@n", "samples", "cut off", "no answer", "not judged")


def render(facts: Facts) -> str:
    single = {name: found for name in ("before", "after", "score") if (found := facts.result("evaluate", name))}
    several = facts.result("evaluate", "models") or {}
    if not single and not several:
        return ""
    rows = [_row(name, found) for name, found in (single | several).items()]
    pairs = facts.result("evaluate", "pairs") or {}
    told = "".join(
        f"<li>{text(names)}: {text(found['verdict'])}; {number(found['better'])} problems better, "
        f"{number(found['worse'])} worse</li>"
        for names, found in pairs.items()
    )
    return table(_HEADS, rows) + (f"<h3>Two by two, problem by problem</h3><ul>{told}</ul>" if told else "")


def _row(name: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    figures = found.get("measures", {})
    low_high = found.get("interval")
    between = f"{100 * low_high[0]:.1f} to {100 * low_high[1]:.1f} %" if low_high else "–"
    counts = [figures.get(key) for key in _COUNTS]
    return (
        text(name), number(found["mean"], True), between, _of(figures, "best@"), _of(figures, "maj@"),
        *("–" if count is None else number(count) for count in counts),
    )  # fmt: skip


def _of(figures: Mapping[str, Any], measure: str) -> str:
    value = next((of["value"] for name, of in figures.items() if name.startswith(measure)), None)
    return "–" if value is None else number(value, True)
