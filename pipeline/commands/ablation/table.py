"""From the rows of every (arm, seed) to what they say: means with intervals, paired differences, a page.

Invariant: an interval is over seeds (Student's t, 95 %), so it holds what differs from one training to the next; with
one seed there is none, and nothing is called shown. Differences are paired by seed, because the arms of a seed share
their SFT, their tasks and the random numbers of these. A figure that no seed has is null. Only what a comparison is
decided by has a verdict, corrected over all that it is decided by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from pipeline.commands.ablation import plan, rounds
from pipeline.commands.ablation.grid import ARMS, COMPARISONS
from pipeline.commands.ablation.inference import ALPHA, Paired, Tested, decide
from pipeline.commands.ablation.measure import METRICS, SOURCE
from pipeline.commands.ablation.plan import Test
from pipeline.report import charts
from pipeline.report.charts import Series, text
from pipeline.report.page import document
from pipeline.report.pieces import figure, gallery

_PERCENT = ("verified_rate", "difficulty", "diversity", "solver", "label_accuracy", "label_change", "sound",
            "pass_rate", "score")  # fmt: skip
_SHOWN = ("verified_rate", "hard_yield_per_1k", "solved_yield_per_1k", "solver")
"""Metrics whose differences are shown where they decide nothing."""

Rows = Sequence[Mapping[str, Any]]
"""As `rows.read` gives them."""


def make(
    rows: Rows,
    comparisons: Sequence[str],
    budget: Mapping[str, int],
    fixed: Mapping[str, str],
    sweep: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """The table as JSON (`ABLATE_KEYS`)."""
    arms = [arm for arm in ARMS if any(row["arm"] == arm for row in rows)]
    of = {arm: [row for row in rows if row["arm"] == arm] for arm in arms}
    return {
        "arms": {
            arm: {
                "meaning": ARMS[arm].meaning,
                "seeds": [row["seed"] for row in of[arm]],
                **{m: summary([v for row in of[arm] if (v := row["figures"][m]) is not None]) for m in METRICS},
                **{m: summary([row[m] for row in of[arm] if m in row]) for m in ("training_tokens", "lr", "minutes")},
            }
            for arm in arms
        },
        "orderings": [ordering for name in comparisons for ordering in _orderings(rows, name)],
        "rounds": {arm: _rounds(of[arm]) for arm in arms if ARMS[arm].gate},
        "sources": {
            arm: {name: summary([row["source"][name] for row in of[arm] if name in row["source"]]) for name in SOURCE}
            for arm in arms
            if not ARMS[arm].gate and any(row["figures"]["solver"] is not None or row["source"] for row in of[arm])
        },
        "sweep": {arm: dict(rates) for arm, rates in sweep.items() if arm in arms},
        "budget": dict(budget),
        "fixed": dict(fixed),
    }


def summary(values: Sequence[float]) -> dict[str, Any] | None:
    """Mean and 95 % interval over seeds; no interval of one value, None of none."""
    if not values:
        return None
    own = Paired(tuple(values))
    return {
        "mean": own.mean,
        "interval": list(own.interval()) if len(values) > 1 else None,
        "values": list(values),
    }


def _orderings(rows: Rows, name: str) -> list[dict[str, Any]]:
    """Does the arm that is expected to lead do so? First what decides, then what is shown beside it."""
    family = plan.tests(name)
    differences, bounds = [t.difference(rows) for t in family], [t.bound(rows) for t in family]
    decided = zip(family, differences, decide(differences, bounds), bounds, strict=True)
    found = [_ordering(*all_of) for all_of in decided if _played(rows, all_of[0])]
    tested = {t.metric for t in family}
    for lower, higher in COMPARISONS[name].orderings:
        for metric in _SHOWN:
            test = Test(name, lower, higher, metric)
            if metric not in tested and (difference := test.difference(rows)) is not None:
                found.append(_ordering(test, difference, None, None))
    return found


def _played(rows: Rows, test: Test) -> bool:
    return {test.lower, test.higher} <= {row["arm"] for row in rows}


def _ordering(test: Test, difference: Paired | None, tested: Tested | None, bound: float | None) -> dict[str, Any]:
    return {
        "comparison": test.comparison,
        "higher": test.higher,
        "lower": test.lower,
        "metric": test.metric,
        "at": f"equal {test.budget}",
        "difference": None if difference is None else summary(difference.values),
        "p": tested and tested.p,
        "bound": bound,
        "p_within": tested and tested.p_within,
        "verdict": "shown" if tested is None else tested.verdict,
    }


def _rounds(own: Rows) -> list[dict[str, Any]]:
    """Of a gate: its rounds, each metric over seeds."""
    return [
        {name: summary([r[name] for r in seeds if r[name] is not None]) for name in rounds.ROUND}
        for seeds in zip(*(row["rounds"] for row in own), strict=True)
    ]


# ---------------------------------------------------------------- for people


def markdown(table: Mapping[str, Any]) -> str:
    """Tables of the arms, of which orderings hold, of rounds, of what solvers learned from, of the sweep."""
    lines = ["| arm | seeds | " + " | ".join(METRICS) + " |", "|---|---|" + "---|" * len(METRICS)]
    for arm, row in table["arms"].items():
        cells = [_shown(row[m], m) for m in METRICS]
        lines.append(f"| {arm} | {len(row['seeds'])} | " + " | ".join(cells) + " |")
    lines += ["", f"| {' | '.join(_HEAD)} |", "|---" * len(_HEAD) + "|"]
    lines += [f"| {' | '.join(_cells(o))} |" for o in table["orderings"]]
    for head, body in (_of_rounds(table), _of_sources(table), _of_sweep(table)):
        if body:
            lines += ["", f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(r)} |" for r in body)]
    meanings = [f"- `{arm}`: {row['meaning']}" for arm, row in table["arms"].items()]
    columns = (
        METRICS | (SOURCE if table["sources"] else {}) | ({} if not table["rounds"] else rounds.ROUND | rounds.METRICS)
    )
    notes = [
        NOTE,
        f"Budget of every arm: {_budget(table['budget'])}.",
        *(f"`{name}`: sha256 {value}." for name, value in table["fixed"].items()),
    ]
    told = [f"- `{name}`: {meaning}" for name, meaning in columns.items()]
    return "\n".join([*lines, "", *notes, "", *meanings, "", *told]) + "\n"


_HEAD = ("comparison", "ordering", "metric", "at", "difference", "p", "p of no difference", "verdict")
NOTE = (
    "Mean [95 % interval over seeds, Student's t]; differences are paired by seed, p as Holm corrects it over the "
    f"tests of a comparison. holds: above zero, p < {ALPHA:g} · refuted: below · no difference: within the bound, by "
    "two one-sided tests · open: neither is shown · shown: decides nothing · one seed: no interval."
)


def _cells(o: Mapping[str, Any]) -> list[str]:
    within = "–" if o["p_within"] is None else f"{o['p_within']:.3f} (±{_scaled(o['bound'], o['metric'])})"
    return [
        o["comparison"],
        f"{o['higher']} > {o['lower']}",
        o["metric"],
        o["at"],
        _shown(o["difference"], o["metric"]),
        "–" if o["p"] is None else f"{o['p']:.3f}",
        within,
        o["verdict"],
    ]


def _of_rounds(table: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and rows: each gate's rounds."""
    body = [
        [gate, str(number), *(_shown(row[name], name) for name in rounds.ROUND)]
        for gate, all_of in table["rounds"].items()
        for number, row in enumerate(all_of, start=1)
    ]
    return ["gate", "round", *rounds.ROUND], body


def _of_sources(table: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    return ["data source", *SOURCE, "solver"], _by_source(table)


def _of_sweep(table: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """What each arm came to at each rate of the sweep; the best is the one it was trained at."""
    rates = list(dict.fromkeys(rate for found in table["sweep"].values() for rate in found))
    body = [[arm, *(f"{f[r]:.3f}" if r in f else "–" for r in rates)] for arm, f in table["sweep"].items()]
    return ["solved_yield_per_1k at learning rate", *rates], body


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


def _html(title: str, head: Sequence[str], body: Sequence[Sequence[str]], words: int = 1) -> str:
    """A table whose first `words` columns are words; nothing where it has no row."""
    if not body:
        return ""
    kinds = ["" if i < words else " class=n" for i in range(len(head))]
    heads = "".join(f"<th{kind}>{text(name)}</th>" for kind, name in zip(kinds, head, strict=True))
    rows = "".join(
        "<tr>" + "".join(f"<td{k}>{text(cell)}</td>" for k, cell in zip(kinds, cells, strict=True)) + "</tr>"
        for cells in body
    )
    return f"<h2>{text(title)}</h2><table><tr>{heads}</tr>{rows}</table>"


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
    told = f'<p class="soft">{text(_budget(table["budget"]))}</p>{_html_arms(table)}'
    told += _html("Do the orderings hold?", _HEAD, [_cells(o) for o in table["orderings"]], 4)
    told += f'<p class="soft">{text(NOTE)}</p>' + _html("Rounds", *_of_rounds(table))
    told += _html("What solvers learned from", *_of_sources(table)) + _html("Learning rates tried", *_of_sweep(table))
    return document("Ablation", f"{told}<h2>Plots</h2>{gallery(figures)}")


def _html_arms(table: Mapping[str, Any]) -> str:
    head = "".join(f"<th class=n>{m.replace('_', ' ')}</th>" for m in METRICS)
    rows = "".join(
        f'<tr><td title="{text(row["meaning"])}">{text(arm)}</td><td class=n>{len(row["seeds"])}</td>'
        + "".join(f"<td class=n>{text(_shown(row[m], m))}</td>" for m in METRICS)
        + "</tr>"
        for arm, row in table["arms"].items()
    )
    return f"<h2>Arms</h2><table><tr><th>arm</th><th class=n>seeds</th>{head}</tr>{rows}</table>"


def _shown(figure: Mapping[str, Any] | None, metric: str) -> str:
    if figure is None:
        return "–"
    mean = _scaled(figure["mean"], metric)
    if figure["interval"] is None:
        return mean
    low, high = (_scaled(v, metric) for v in figure["interval"])
    return f"{mean} [{low}, {high}]"


def _scaled(value: float, metric: str) -> str:
    if metric == "problems":
        return f"{value:.0f}"
    return f"{100 * value:.1f}" if metric in _PERCENT else f"{value:.2f}"


def _budget(budget: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in budget.items())


def _paper(comparison: Any, metric: str) -> str:
    if metric != comparison.measure or not comparison.paper:
        return ""
    told = " · ".join(f"{a} {p:g}" for a, p in zip(comparison.arms, comparison.paper, strict=True))
    return f" The paper, at its scale: {told}."


def _mean_curve(runs: Sequence[Sequence[Mapping[str, Any]]]) -> list[tuple[float, float | None]]:
    """Mean over seeds at the steps that all of them have."""
    steps = zip(*runs, strict=False)
    return [(float(rows[0]["step"]), fmean(r["hard_yield_per_1k"] for r in rows)) for rows in steps]
