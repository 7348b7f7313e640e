"""The curriculum's state as tables: how often categories and skills are offered, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.report.charts import number, text
from pipeline.report.pieces import table
from pipeline.skills.curriculum import probabilities

_SHOWN = 12


def categories(proficiency: Mapping[str, float], epsilon: float) -> str:
    offered = probabilities(proficiency, epsilon)
    rows = [(text(c), number(m, True), number(offered[c], True)) for c, m in sorted(proficiency.items())]
    return table(("category", "proficiency m_c", "offered next, p(c)"), rows)


def arms(state: Mapping[str, Any]) -> str:
    """The arms of both bandits: those that go best, and those that go worst."""
    tables = [_arms("skill", state["skills"], "Problems that used it count as won, failures of tasks it was part of as "
                    "lost; older ones fade. Drawn most are those that go neither always nor never.")]  # fmt: skip
    if pairs := state.get("pairs"):
        tables.append(_arms("combination", pairs, "Won where a verified problem uses both skills."))
    return "".join(tables)


def _arms(of: str, counts: Mapping[str, Sequence[float]], caption: str) -> str:
    rates = sorted(((1 + won) / (2 + won + lost), name) for name, (won, lost) in counts.items())
    shown = rates if len(rates) <= 2 * _SHOWN else [*rates[:_SHOWN], *rates[-_SHOWN:]]
    rows = [(text(name), *(f"{n:.1f}" for n in counts[name]), number(rate, True)) for rate, name in reversed(shown)]
    more = f" Shown are {len(shown)} of {len(rates)}, the best and the worst." if len(shown) < len(rates) else ""
    return table((of, "won", "lost", "rate"), rows) + f'<p class="soft">{caption}{more}</p>'
