"""From the figures of every (arm, seed) to what they say: means with intervals, paired differences, a page.

Invariant: an interval is over seeds (Student's t, 95 %), so it holds what differs from one training to the next; with
one seed there is none, and nothing is called shown. Differences are paired by seed, because the arms of a seed share
their SFT and their tasks. A figure that no seed has is null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from pipeline.commands.ablation.grid import ARMS, COMPARISONS
from pipeline.commands.ablation.measure import METRICS, SOURCE
from pipeline.report import charts
from pipeline.report.charts import Series, text
from pipeline.report.page import document
from pipeline.report.pieces import figure, gallery

_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t at 97.5 %, from one degree of freedom on; beyond the table 1.96 is taken, a little too narrow."""
_PERCENT = ("verified_rate", "difficulty", "diversity", "solver")
_JUDGED_BY = ("hard_yield_per_1k", "solved_yield_per_1k", "verified_rate", "solver")
"""Metrics that an ordering is checked with."""

Figures = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""arm -> seed -> metric -> value."""


def make(figures: Figures, comparisons: Sequence[str], budget: Mapping[str, int]) -> dict[str, Any]:
    """The table as JSON: `arms`, `orderings` of each comparison, `sources` (what each solver learned from), and the
    budget of every arm."""
    return {
        "arms": {
            arm: {
                "meaning": ARMS[arm].meaning,
                "seeds": sorted(by_seed),
                **{m: summary([s[m] for s in by_seed.values() if s[m] is not None]) for m in METRICS},
            }
            for arm, by_seed in figures.items()
        },
        "orderings": [
            _ordering(figures, name, lower, higher, metric)
            for name in comparisons
            for lower, higher in COMPARISONS[name].orderings
            for metric in _JUDGED_BY
            if lower in figures
            and higher in figures
            # Without a proposer an arm has its solver alone.
            and (metric == "solver" or None not in (ARMS[lower].start, ARMS[higher].start))
        ],
        "sources": {
            arm: {
                name: summary([s["source"][name] for s in by_seed.values() if name in s["source"]]) for name in SOURCE
            }
            for arm, by_seed in figures.items()
            if any(s["solver"] is not None or s["source"] for s in by_seed.values())
        },
        "budget": dict(budget),
    }


def summary(values: Sequence[float]) -> dict[str, Any] | None:
    """Mean and 95 % interval over seeds; no interval of one value, None of none."""
    if not values:
        return None
    mean = fmean(values)
    half = _T[len(values) - 2] if 2 <= len(values) < len(_T) + 2 else 1.96
    spread = half * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return {
        "mean": mean,
        "interval": None if spread is None else [mean - spread, mean + spread],
        "values": list(values),
    }


def _ordering(figures: Figures, comparison: str, lower: str, higher: str, metric: str) -> dict[str, Any]:
    """Does the arm that the paper ranks higher lead?"""
    seeds = sorted(set(figures[lower]) & set(figures[higher]))
    pairs = [(figures[higher][s][metric], figures[lower][s][metric]) for s in seeds]
    difference = summary([a - b for a, b in pairs if a is not None and b is not None])
    return {
        "comparison": comparison,
        "higher": higher,
        "lower": lower,
        "metric": metric,
        "difference": difference,
        "verdict": _verdict(difference),
    }


def _verdict(difference: dict[str, Any] | None) -> str:
    if difference is None:
        return "not measured"
    if difference["interval"] is None:
        return "one seed"
    low, high = difference["interval"]
    return "holds" if low > 0 else "reversed" if high < 0 else "open"


# ---------------------------------------------------------------- for people


def markdown(table: Mapping[str, Any]) -> str:
    """Two tables: the arms, and which of the paper's orderings hold."""
    lines = ["| arm | seeds | " + " | ".join(METRICS) + " |", "|---|---|" + "---|" * len(METRICS)]
    for arm, row in table["arms"].items():
        cells = [_shown(row[m], m) for m in METRICS]
        lines.append(f"| {arm} | {len(row['seeds'])} | " + " | ".join(cells) + " |")
    lines += ["", "| comparison | ordering | metric | difference | verdict |", "|---|---|---|---|---|"]
    for o in table["orderings"]:
        difference = _shown(o["difference"], o["metric"])
        lines.append(
            f"| {o['comparison']} | {o['higher']} > {o['lower']} | {o['metric']} | {difference} | {o['verdict']} |"
        )
    lines += _sources(table)
    meanings = [f"- `{arm}`: {row['meaning']}" for arm, row in table["arms"].items()]
    columns = [f"- `{m}`: {meaning}" for m, meaning in (METRICS | (SOURCE if table["sources"] else {})).items()]
    notes = [
        "Mean [95 % interval over seeds, Student's t]; differences are paired by seed. holds: the interval is above "
        "zero · reversed: below · open: it holds zero · one seed: no interval.",
        f"Budget of every arm: {_budget(table['budget'])}.",
    ]
    return "\n".join([*lines, "", *notes, "", *meanings, "", *columns]) + "\n"


def _by_source(table: Mapping[str, Any]) -> list[list[str]]:
    """A row a data source: its name, of `SOURCE`, the solver that learned from it; the best first, and last those that
    gave no problem to learn from."""

    def rank(arm: str) -> float:
        solver = table["arms"][arm]["solver"]
        return math.inf if solver is None else -solver["mean"]

    found = sorted(table["sources"].items(), key=lambda row: rank(row[0]))
    return [
        [arm, *(_count(row[name], name) for name in SOURCE), _shown(table["arms"][arm]["solver"], "solver")]
        for arm, row in found
    ]


def _sources(table: Mapping[str, Any]) -> list[str]:
    """Their table; nothing where no solver was trained."""
    if not (rows := _by_source(table)):
        return []
    head = ["", f"| data source | {' | '.join(SOURCE)} | solver |", "|---|" + "---|" * (len(SOURCE) + 1)]
    return [*head, *(f"| {' | '.join(row)} |" for row in rows)]


def _html_sources(table: Mapping[str, Any]) -> str:
    if not (rows := _by_source(table)):
        return ""
    head = "".join(f"<th class=n>{text(name)}</th>" for name in (*SOURCE, "solver"))
    body = "".join(
        f"<tr><td>{text(arm)}</td>" + "".join(f"<td class=n>{text(cell)}</td>" for cell in cells) + "</tr>"
        for arm, *cells in rows
    )
    return f"<h2>What solvers learned from</h2><table><tr><th>data source</th>{head}</tr>{body}</table>"


def _count(figure: Mapping[str, Any] | None, name: str) -> str:
    if figure is None:
        return "–"
    return f"{100 * figure['mean']:.1f}" if name == "validity" else f"{figure['mean']:.0f}"


def page(table: Mapping[str, Any], curves: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> str:
    """table.html: the same with a plot of each comparison, and the learning curves of MGPO."""
    figures = []
    arms = table["arms"]
    for comparison in COMPARISONS.values():
        present = [a for a in comparison.arms if a in arms]
        for metric in METRICS:
            rows = [(a, arms[a][metric]) for a in present if arms[a][metric] is not None]
            if len(rows) > 1:
                bars = [(a, s["mean"], s["interval"], s["values"]) for a, s in rows]
                caption = f"{METRICS[metric]}. Lines: 95 % over seeds; small dots: seeds.{_paper(comparison, metric)}"
                drawn = charts.ranges(bars, metric in _PERCENT)
                figures.append(figure(f"{comparison.title}: {metric}", drawn, caption))
    learned = [Series(arm, _mean_curve(rows)) for arm, rows in curves.items()][:5]
    if learned:
        caption = "hard_yield_per_1k of the training episodes, mean over seeds; the first five arms."
        figures.append(figure("Learning curves", charts.lines(learned), caption))
    told = f'<p class="soft">{text(_budget(table["budget"]))}</p>{_html_table(table)}{_html_sources(table)}'
    return document("Ablation", f"{told}<h2>Plots</h2>{gallery(figures)}")


def _html_table(table: Mapping[str, Any]) -> str:
    head = "".join(f"<th class=n>{m.replace('_', ' ')}</th>" for m in METRICS)
    rows = "".join(
        f'<tr><td title="{text(row["meaning"])}">{text(arm)}</td><td class=n>{len(row["seeds"])}</td>'
        + "".join(f"<td class=n>{text(_shown(row[m], m))}</td>" for m in METRICS)
        + "</tr>"
        for arm, row in table["arms"].items()
    )
    orderings = "".join(
        f"<tr><td>{text(o['comparison'])}</td><td>{text(o['higher'])} &gt; {text(o['lower'])}</td>"
        f"<td>{text(o['metric'])}</td><td class=n>{text(_shown(o['difference'], o['metric']))}</td>"
        f"<td>{text(o['verdict'])}</td></tr>"
        for o in table["orderings"]
    )
    return (
        f"<h2>Arms</h2><table><tr><th>arm</th><th class=n>seeds</th>{head}</tr>{rows}</table>"
        "<h2>Do the orderings hold?</h2><table><tr><th>comparison</th><th>ordering</th><th>metric</th>"
        f"<th class=n>difference</th><th>verdict</th></tr>{orderings}</table>"
    )


def _shown(figure: Mapping[str, Any] | None, metric: str) -> str:
    if figure is None:
        return "–"
    scale, digits = (100, 1) if metric in _PERCENT else (1, 2)
    mean = f"{scale * figure['mean']:.{digits}f}"
    if figure["interval"] is None:
        return mean
    low, high = (f"{scale * v:.{digits}f}" for v in figure["interval"])
    return f"{mean} [{low}, {high}]"


def _budget(budget: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in budget.items())


def _paper(comparison: Any, metric: str) -> str:
    if metric != comparison.measure or None in comparison.paper:
        return ""
    told = " · ".join(f"{a} {p:g}" for a, p in zip(comparison.arms, comparison.paper, strict=True))
    return f" The paper, at its scale: {told}."


def _mean_curve(runs: Sequence[Sequence[Mapping[str, Any]]]) -> list[tuple[float, float | None]]:
    """Mean over seeds at the steps that all of them have."""
    steps = zip(*runs, strict=False)
    return [(float(rows[0]["step"]), fmean(r["hard_yield_per_1k"] for r in rows)) for rows in steps]
