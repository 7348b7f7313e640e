"""What a grid can tell before it is run: its tests, and the smallest difference that each would show.

Invariant: which tests there are, the level of each, and what counts as no difference (of yields: a share of the lower
arm's mean) follow from the grid, never from the differences that were measured. The spread of a seed's difference is
that of earlier seeds of the same table where there are `_ENOUGH`, else a stated assumption.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from pipeline.commands.ablation.grid import COMPARISONS
from pipeline.commands.ablation.inference import ALPHA, POWER, Paired, smallest_bound, smallest_difference

Budget = Literal["steps", "tokens"]
_WITHIN = {"verified_rate": 0.03, "label_accuracy": 0.02, "label_change": 0.02, "solver": 0.02}
_WITHIN_SHARE = {"hard_yield_per_1k": 0.10, "solved_yield_per_1k": 0.10}
"""Two arms that differ by less do not differ for any use: so much, or this share of the lower arm's mean."""
ASSUMED = {
    "verified_rate": 0.05,
    "hard_yield_per_1k": 0.10,
    "solved_yield_per_1k": 0.04,
    "solver": 0.02,
    "label_accuracy": 0.03,
    "label_change": 0.03,
}
"""Standard deviation of a seed's difference. Validity and yields: of pairs of the method's parts with three seeds of
240 episodes each (README.md), where it was 0.02 to 0.09 and 0.05 to 0.2. Solver: 240 problems, four answers each,
compared problem by problem, had an interval of 2.8 points to either side, which is a standard deviation of 1.4; as much
again from training. Labels: binomial, of 100 rows at 0.9."""
_ENOUGH = 3
"""Seeds of which a spread is taken."""


@dataclass(frozen=True)
class Test:
    """A pair of a comparison, by one metric."""

    comparison: str
    lower: str
    higher: str
    metric: str
    budget: Budget = "steps"
    """What both arms had the same of: steps and episodes, or sampled tokens as well."""

    def difference(self, rows: Sequence[Mapping[str, Any]]) -> Paired | None:
        """Of the seeds that have both arms."""
        higher, lower = (self._of(rows, arm) for arm in (self.higher, self.lower))
        seeds = sorted(higher.keys() & lower.keys())
        return Paired(tuple(higher[s] - lower[s] for s in seeds)) if seeds else None

    def bound(self, rows: Sequence[Mapping[str, Any]]) -> float:
        """The least difference that matters."""
        if self.metric in _WITHIN:
            return _WITHIN[self.metric]
        values = list(self._of(rows, self.lower).values())
        return _WITHIN_SHARE[self.metric] * (fmean(values) if values else 0.0)

    def _of(self, rows: Sequence[Mapping[str, Any]], arm: str) -> dict[int, float]:
        """Seed -> figure, of those that have one."""
        mine = {row["seed"]: self._figures(row) for row in rows if row["arm"] == arm}
        return {seed: f[self.metric] for seed, f in mine.items() if f.get(self.metric) is not None}

    def _figures(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        figures: Mapping[str, Any] = row["figures"]
        return figures if self.budget == "steps" else row.get("equal_tokens", {}).get(self.comparison, {})


def tests(name: str) -> list[Test]:
    """The family that is corrected together."""
    comparison = COMPARISONS[name]
    budgets: tuple[Budget, ...] = ("steps", "tokens") if comparison.by_tokens else ("steps",)
    return [
        Test(name, lower, higher, metric, budget)
        for lower, higher in comparison.orderings
        for metric in comparison.tested
        for budget in budgets
    ]


def lines(rows: Sequence[Mapping[str, Any]], comparisons: Sequence[str], seeds: int) -> Iterator[str]:
    """A line for each comparison and metric: what so many seeds would tell. One seed tells nothing."""
    for name in comparisons:
        family = tests(name)
        level = ALPHA / len(family)
        for metric in COMPARISONS[name].tested:
            spread, source = _spread(rows, [t for t in family if t.metric == metric])
            what = f"{name}, {metric}, {len(family)} tests"
            if seeds < 2:
                yield f"{what}: one seed decides nothing"
                continue
            told, within = smallest_difference(spread, seeds, level), smallest_bound(spread, seeds, level)
            yield (
                f"{what}: {seeds} seeds tell a difference of {_figure(metric, told)} with {POWER:.0%}, and show that "
                f"there is none of {_figure(metric, within)} (it matters from {_matters(metric)}); spread of a seed's "
                f"difference {_figure(metric, spread)}, {source}"
            )


def _spread(rows: Sequence[Mapping[str, Any]], family: Sequence[Test]) -> tuple[float, str]:
    """The root mean square over the tests of one metric, and where it is from."""
    found = [d for t in family if (d := t.difference(rows)) is not None and len(d.values) >= _ENOUGH]
    if found and (spread := math.sqrt(fmean(d.spread**2 for d in found))) > 0:
        return spread, f"measured on {min(len(d.values) for d in found)} seeds"
    return ASSUMED[family[0].metric], "assumed"


def _figure(metric: str, value: float) -> str:
    return f"{100 * value:.1f} points" if metric in _WITHIN else f"{value:.3f}"


def _matters(metric: str) -> str:
    return _figure(metric, _WITHIN[metric]) if metric in _WITHIN else f"{_WITHIN_SHARE[metric]:.0%} of the lower arm"
