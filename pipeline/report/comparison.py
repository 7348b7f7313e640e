"""Two runs side by side: a page that says in words how B differs from A, then each figure of both.

Invariant: better and worse are said only where an interval of the difference says so; what one of the two has not is
named as missing, never zero.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.report import charts
from pipeline.report.charts import Series, number, text
from pipeline.report.facts import Facts
from pipeline.report.formulas import typeset
from pipeline.report.page import document
from pipeline.report.pieces import duration, figure, gallery, table, tenths
from pipeline.report.plots import MGPO, SFT, SOLVE
from pipeline.store.identity import differences
from pipeline.store.run_stages import RUN_STAGES

Compared = Mapping[str, Any]
"""What `measures.compare` says of the solvers' answers, with their questions and a verdict in words."""
_SHOWN = 12
"""Changed problems of each direction."""


@dataclass(frozen=True)
class _Row:
    key: str
    """Of the summary; with `_interval` behind it, that of its interval, where there is one."""
    label: str
    share: bool = True
    good: Literal["up", "down"] | None = None
    """Which way is better; None: neither."""


_ROWS = (
    _Row("problems", "problems in the data set", share=False),
    _Row("validity", "validity: accepted of judged episodes, in synthesis", good="up"),
    _Row("prune_rate", "episodes that dropped a skill"),
    _Row("mean_pass_at_k", "Pass@k of the prober, mean of the data set"),
    _Row("mean_pass_rate", "the prober's samples that are right"),
    _Row("unsolved", "valid problems that no prober solves", share=False),
    _Row("guessable", "problems that a guess solves one time in two", share=False, good="down"),
    _Row("skeletons", "distinct skeletons", share=False),
    _Row("skeleton_top_share", "share of the commonest skeleton", good="down"),
    _Row("spot_checks_accepted", "spoiled problems that the committee accepted", share=False, good="down"),
    _Row("exploit_share", "exploits of the adversary's tries", good="down"),
    _Row("hard_yield_last", "hard yield per 1,000 tokens, last steps of MGPO", share=False, good="up"),
    _Row("solver_before", "solver before training"),
    _Row("solver_after", "solver after training", good="up"),
    _Row("solver_gain", "gain of the solver", good="up"),
)


def render(a: Facts, b: Facts, first: Mapping[str, Any], second: Mapping[str, Any], compared: Compared | str) -> str:
    """The whole page. `first` and `second` are the runs' summaries; a comparison that could not be made is the reason
    why."""
    names = _names(a, b)
    settings = differences(a.config.model_dump(mode="json"), b.config.model_dump(mode="json"))
    parts = [
        f'<p class="soft">A: run {text(a.run.root.name)} · B: run {text(b.run.root.name)}</p>',
        _opening(first, second, compared, len(settings)),
        "<h2>Figures</h2>" + _figures(first, second),
        "<h2>Stages</h2>" + _stages(a, b),
        "<h2>Settings that differ</h2>" + _settings(settings),
        _section("The data sets", _data_sets(a, b)),
        _section("What is left out, and why", _left_out(a, b)),
        _section("Training", _curves(a, b)),
        _section("Problems that the solvers answer differently", _changed(compared)),
    ]
    return document(f"A {names[0]}, B {names[1]}", "".join(parts))


def _names(a: Facts, b: Facts) -> tuple[str, str]:
    """What the runs are called, by their folders where both have one name."""
    if a.config.name != b.config.name:
        return a.config.name, b.config.name
    return a.run.root.name, b.run.root.name


def _section(title: str, body: str) -> str:
    return f"<h2>{title}</h2>{body}" if body else ""


# ---------------------------------------------------------------- words


def _opening(a: Mapping[str, Any], b: Mapping[str, Any], compared: Compared | str, settings: int) -> str:
    way = "level"
    sentences: list[str] = []
    if isinstance(compared, str):
        sentences.append(f"The solvers cannot be compared: {text(compared)}.")
    else:
        low, high = compared["interval"]
        way = "up" if low > 0 else "down" if high < 0 else "level"
        colour = {"up": "good", "down": "bad", "level": "soft"}[way]
        sentences.append(f'Of the two solvers, <b class="{colour}">{text(compared["verdict"])}</b>.')
    for row in _ROWS:
        told = _told(row, a, b)
        if row.key in ("validity", "mean_pass_at_k") and told.way is not None:
            label = row.label.partition(":")[0]
            sentences.append(f"B's {text(label)} is {told.words} ({told.a} in A, {told.b} in B).")
    sentences.append(f"Their configs differ in {number(settings)} field{'' if settings == 1 else 's'}.")
    return f'<p class="opening {way}">{" ".join(sentences)}</p>'


@dataclass(frozen=True)
class _Told:
    a: str
    b: str
    words: str
    way: Literal["up", "down", "level"] | None
    """None: not known, or without an interval."""


def _told(row: _Row, a: Mapping[str, Any], b: Mapping[str, Any]) -> _Told:
    x, y = a[row.key], b[row.key]
    before, after = ("not known" if v is None else number(v, row.share) for v in (x, y))
    if x is None or y is None:
        return _Told(before, after, "", None)
    change = f"{100 * (y - x):+.1f} points" if row.share else f"{y - x:+,.4g}"
    first, second = (s.get(f"{row.key}_interval") for s in (a, b))
    if not first or not second:
        return _Told(before, after, change if y != x else "the same", None)
    # Of two runs that were measured apart: the squares of the half widths add up.
    half = math.hypot((first[1] - first[0]) / 2, (second[1] - second[0]) / 2)
    way: Literal["up", "down", "level"] = "up" if y - x > half else "down" if x - y > half else "level"
    said = {"up": "higher", "down": "lower", "level": "not shown to differ"}[way]
    return _Told(before, after, f"{said}: {change} ± {100 * half if row.share else half:.1f}", way)


# ---------------------------------------------------------------- tables


def _figures(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    rows: list[tuple[str, ...]] = []
    for row in _ROWS:
        told = _told(row, a, b)
        if a[row.key] is None and b[row.key] is None:
            continue
        better = (
            "soft" if row.good is None or told.way in (None, "level") else "good" if told.way == row.good else "bad"
        )
        rows.append((text(row.label), told.a, told.b, f'<span class="{better}">{text(told.words)}</span>'))
    for label, seconds in (
        ("time of all finished stages", [s["wall_s"] or None for s in (a, b)]),
        ("time of synthesis per accepted problem", [_per_problem(s) for s in (a, b)]),
    ):
        rows.append((label, *("not known" if v is None else duration(v) for v in seconds), ""))
    note = '<p class="soft">± is half of the 95 % interval of the difference of two runs that were measured apart.</p>'
    return table(("figure", "A", "B", "B against A"), rows, words=(0, 3)) + note


def _per_problem(summary: Mapping[str, Any]) -> float | None:
    took, problems = summary["stages"]["synthesize"]["wall_s"], summary["problems"]
    return took / problems if took is not None and problems else None


def _stages(a: Facts, b: Facts) -> str:
    def cells(facts: Facts, stage: str) -> tuple[str, str]:
        done = facts.results.get(stage)
        return facts.status(stage), duration(done["wall_s"]) if done else "–"

    rows = [(stage, *cells(a, stage), *cells(b, stage)) for stage in RUN_STAGES]
    return table(("stage", "A", "time", "B", "time"), rows, words=(0, 1, 3))


def _settings(found: Sequence[tuple[str, Any, Any]]) -> str:
    if not found:
        return '<p class="missing">None.</p>'
    rows = [(text(field), _value(was), _value(now)) for field, was, now in found]
    return table(("field", "A", "B"), rows, words=(0, 1, 2))


def _value(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    return text(shown if len(shown) <= 200 else f"{shown[:199]}…")


def _left_out(a: Facts, b: Facts) -> str:
    """Gates and causes, as shares of each run's episodes."""
    played = [facts.played.get("synthesize") for facts in (a, b)]
    counts = [
        Counter(facts.result("synthesize", "left_out") or {}) + (p.causes if p else Counter())
        for facts, p in zip((a, b), played, strict=True)
    ]
    episodes = [p.episodes if p else 0 for p in played]
    causes = [cause for cause, _ in (counts[0] + counts[1]).most_common(12)]

    def cell(which: int, cause: str) -> str:
        n = counts[which][cause]
        return f"{number(n)} ({number(n / episodes[which], True)})" if episodes[which] else "not known"

    rows = [(text(cause[:200]), cell(0, cause), cell(1, cause)) for cause in causes]
    return table(("cause", "A", "B"), rows) if rows else ""


def _changed(compared: Compared | str) -> str:
    if isinstance(compared, str) or not compared["changed"]:
        return ""
    items = [*compared["changed"][:_SHOWN], *compared["changed"][_SHOWN:][-_SHOWN:]]
    rows = [(typeset(i["question"]), number(i["a"], True), number(i["b"], True)) for i in items]
    told = (
        f"{number(compared['better'])} problems better in B, {number(compared['worse'])} worse, of "
        f"{number(compared['problems'])}; shown are those that changed most."
    )
    return f'<p class="soft">{told}</p>' + table(("problem", "A", "B"), rows)


# ---------------------------------------------------------------- charts


def _data_sets(a: Facts, b: Facts) -> str:
    figures = []
    for name, facts in (("A", a), ("B", b)):
        if rho := facts.pass_at_k():
            caption = f"{number(len(rho))} problems by the prober's Pass@{facts.config.prober.k}."
            figures.append(figure(f"Difficulty, {name}", charts.columns(tenths(rho)), caption))
    for name, facts in (("A", a), ("B", b)):
        if categories := Counter(p["category"] for p in facts.provenance):
            rows = [(c, n / len(facts.provenance), "") for c, n in sorted(categories.items())]
            figures.append(figure(f"Categories, {name}", charts.bars(rows, percent=True), "Share of the problems."))
    return gallery(figures) if figures else ""


def _curves(a: Facts, b: Facts) -> str:
    """The first curve of each plot, of both runs."""
    figures = []
    for stage, plots in (("sft", SFT), ("mgpo", MGPO), ("solve", SOLVE)):
        for plot in plots:
            metric, label = plot.series[0]
            both = {name: facts.rows.get(stage, []) for name, facts in (("A", a), ("B", b))}
            if all(any(metric in row for row in rows) for rows in both.values()):
                series = [Series(n, [(row["step"], row.get(metric)) for row in rows]) for n, rows in both.items()]
                drawn = charts.lines(series, plot.percent, plot.zero)
                figures.append(figure(f"{stage}: {plot.title}", drawn, f"{label[0].upper()}{label[1:]}."))
    return gallery(figures) if figures else ""
