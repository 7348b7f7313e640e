"""What the report tells, section by section. A new section is one function here and one entry in `SECTIONS`.

Invariant: every figure comes from the run directory; what is not there is said to be missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from pipeline.report import browser, charts, costs, gated, models, trajectories
from pipeline.report import curriculum as tables
from pipeline.report.charts import Pair, Series, number, text
from pipeline.report.facts import PLAYED, Facts, Played
from pipeline.report.pieces import duration, figure, gallery, percent, table, tenths
from pipeline.report.plots import MGPO, SFT, SOLVE, Plot
from pipeline.scoring.identity import alert
from pipeline.store.run_stages import RUN_STAGES


def headline(facts: Facts) -> str:
    played = facts.played.get("synthesize")
    rho = facts.pass_at_k()
    before, after = facts.solver("before"), facts.solver("after")
    first, last = facts.trend("mgpo", "hard_yield_per_1k")
    cards = [
        ("problems", number(len(facts.provenance)) if facts.provenance else None, "accepted and distinct"),
        ("validity", percent(played.validity() if played else None), "accepted of judged, in synthesis"),
        ("difficulty", percent(1 - sum(rho) / len(rho) if rho else None), "1 − Pass@k, mean of the data set"),
        (
            "hard yield",
            f"{number(first)} → {number(last)}" if first is not None and last is not None else None,
            "per 1,000 tokens, first to last steps of MGPO",
        ),
        (
            "solver",
            f"{100 * before:.1f} → {100 * after:.1f} %" if before is not None and after is not None else None,
            _solver_note(facts),
        ),
        ("time", duration(facts.wall_s()) if facts.results else None, "all finished stages"),
    ]
    return '<div class="cards">' + "".join(_card(*c) for c in cards) + "</div>"


def _card(title: str, value: str | None, note: str) -> str:
    shown = f"<b>{text(value)}</b>" if value is not None else '<b class="none">not yet</b>'
    return f'<div class="card"><span class="soft">{title}</span>{shown}<span class="soft">{text(note)}</span></div>'


def _solver_note(facts: Facts) -> str:
    before, after = facts.result("evaluate", "before"), facts.result("evaluate", "after")
    if not before or not after:
        return "on the held-out benchmark"
    if gain := _gain(facts):
        return f"on the held-out benchmark; {gain}"
    a, b = _interval(before), _interval(after)
    if a and b:
        return f"on the held-out benchmark; the intervals {'are apart' if _apart(a, b) else 'overlap'}"
    return "on the held-out benchmark; no intervals recorded"


def stages(facts: Facts) -> str:
    rows = [
        (s, facts.status(s), str(facts.steps[s] or "–"),
         duration(facts.results[s]["wall_s"]) if s in facts.results else "–", text(_told(facts, s)))
        for s in RUN_STAGES
    ]  # fmt: skip
    return table(("stage", "status", "steps on disk", "time", "result"), rows, words=(0, 1, 4))


def _told(facts: Facts, stage: str) -> str:
    """The plain numbers of a stage's result, in its own words."""
    result: dict[str, Any] = facts.results.get(stage, {}).get("result", {})
    plain = {k: v for k, v in result.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    return ", ".join(f"{k.replace('_', ' ')} {number(v)}" for k, v in plain.items())


def taken(facts: Facts) -> str:
    return costs.render(facts)


def dataset(facts: Facts) -> str:
    if not facts.provenance:
        return _missing(facts, "synthesize")
    rho = facts.pass_at_k()
    chances = [p["chance"] for p in facts.provenance if p.get("chance") is not None]
    skeletons = Counter(p["skeleton"] for p in facts.provenance if "skeleton" in p)
    categories = Counter(p["category"] for p in facts.provenance)
    by_skill = Counter(s for p in facts.provenance for s in p["active"])
    together = Counter(pair for p in facts.provenance for pair in combinations(sorted(p.get("used", p["active"])), 2))
    k = facts.config.prober.k
    figures = [
        figure(f"Pass@{k}", charts.columns(tenths(rho)), f"Problems by the prober's Pass@{k}, each column up to its "
                "label; 0: it never did, so nothing tells hard from unsolvable but the committee."),
        *([figure("Rate", charts.columns(tenths(rates)),
                   "Problems by the share of the prober's samples that are right, each column up to its label.")]
          if (rates := facts.pass_rate()) else []),
        figure("Categories", charts.bars([
            (c, float(n), _difficulty(facts, c))
            for c, n in categories.most_common()
        ]), "Problems in the data set."),
        *([figure("Skills", charts.bars([(s, float(n), "") for s, n in by_skill.most_common(8)]),
                  f"Problems that use a skill; the {min(8, len(by_skill))} commonest of {len(by_skill)}.")]
          if by_skill else []),
    ]  # fmt: skip
    if together:
        pairs = [(f"{one} + {other}"[:60], float(n), "") for (one, other), n in together.most_common(8)]
        caption = f"Problems that need both skills, as the verifiers read them; the commonest of {len(together)} pairs."
        figures.append(figure("Skills together", charts.bars(pairs), caption))
    if chances:
        caption = "Problems by the chance that a guess is right."
        figures.append(figure("Guessable", charts.columns(tenths(chances)), caption))
    if skeletons:
        common = [(s[:60], float(n), "") for s, n in skeletons.most_common(6)]
        caption = f"Problems without numbers, names and wordings; the commonest of {len(skeletons)}."
        figures.append(figure("Skeletons", charts.bars(common), caption))
    return _partly(facts, "synthesize") + _alerts(facts) + gallery(figures)


def gates(facts: Facts) -> str:
    return gated.render(facts)


def _alerts(facts: Facts) -> str:
    """What a reader of the data set must know first, a line each."""
    lines = []
    if unsolved := facts.result("synthesize", "unsolved"):
        lines.append(f"{number(unsolved)} valid problems that no prober solves above chance are kept out of it.")
    if (figures := facts.diversity()) and (line := alert(figures, len(facts.provenance))):
        lines.append(f"Little variety: {line}.")
    return "".join(f'<p class="missing">{text(line)}</p>' for line in lines)


def adversary(facts: Facts) -> str:
    found = facts.adversary
    if found is None:
        return ""
    counts = ("tries", "accepted", "paid", "exported", "exploits")
    rows = [(text(kind), *(number(n[k]) for k in counts)) for kind, n in found["by_kind"].items()]
    heads = ("descends from", "tries", "accepted", "paid", "would be exported", "exploits")
    faults = ", ".join(f"{text(fault)} {percent(share)}" for fault, share in found["by_fault"].items())
    return table(heads, rows) + (
        f'<p class="soft">A search against this run\'s judges and rewards: {percent(found["exploit_share"])} of '
        f"{number(found['tries'])} tries were paid and should not be{': ' + faults if faults else ''}.</p>"
    )


def proposer_training(facts: Facts) -> str:
    return _stage_plots(facts, "mgpo", MGPO, _proficiency(facts))


def solver_training(facts: Facts) -> str:
    return _warmup(facts) + _stage_plots(facts, "solve", SOLVE)


def _warmup(facts: Facts) -> str:
    """What SFT before GRPO came to."""
    warm = facts.result("solve", "warmup")
    if not warm:
        return ""
    left_out = "".join(f"; left out: {number(n)} {text(why)}" for why, n in warm["left_out"].items())
    return (
        f"<p>Before GRPO, SFT on {number(warm['solutions'])} worked solutions, {number(warm['steps'])} steps: loss "
        f"{warm['loss_first']:.2f} → {warm['loss_last']:.2f} nats a token{left_out}.</p>"
    )


def cloning(facts: Facts) -> str:
    return _stage_plots(facts, "sft", SFT) + _styles(facts)


def _styles(facts: Facts) -> str:
    """Of the teachers' trajectories: in which styles, by whom, and why the others are not cloned."""
    parts = [("style", facts.result("sft", "styles")), ("teacher", facts.result("sft", "by_teacher"))]
    heads = ("played", "accepted", "cloned")
    found = [
        table((of, *heads), [(text(name.replace("_", " ")), *(number(n[key]) for key in heads))
                             for name, n in sorted(counts.items())])
        for of, counts in parts if counts
    ]  # fmt: skip
    if rejected := facts.result("sft", "rejected"):
        reasons = [(text(why), number(n)) for why, n in rejected.items()]
        found.append(table(("not cloned, because", "trajectories"), reasons))
    return "".join(f"{html}<br>" for html in found)


def _stage_plots(facts: Facts, stage: str, plots: Sequence[Plot], more: str = "") -> str:
    rows = facts.rows.get(stage, [])
    figures = []
    for plot in plots:
        series = [
            Series(label, [(row["step"], row.get(metric)) for row in rows])
            for metric, label in plot.series
            if any(metric in row for row in rows)
        ]
        if series:
            figures.append(figure(plot.title, charts.lines(series, plot.percent, plot.zero), plot.caption))
    if more:
        figures.append(more)
    return _partly(facts, stage) + gallery(figures) if figures else _missing(facts, stage)


def _proficiency(facts: Facts) -> str:
    """The curriculum's m_c, where the stage logs it."""
    rows = facts.rows.get("mgpo", [])
    names = sorted({name for row in rows for name in row if name.startswith("proficiency/")})[:5]
    if not names:
        return ""
    series = [Series(n.removeprefix("proficiency/"), [(row["step"], row.get(n)) for row in rows]) for n in names]
    return figure(
        "Curriculum", charts.lines(series, percent=True), "Proficiency of each category; the weaker is drawn more."
    )


def curriculum(facts: Facts) -> str:
    never = facts.result("acquire", "never_offered") or {}
    named = "".join(f'<p class="missing">Never offered: {text(c)}, {text(why)}.</p>' for c, why in never.items())
    state = facts.curriculum
    if state is None:
        return named
    return named + tables.categories(state["proficiency"], facts.config.mgpo.curriculum.epsilon) + tables.arms(state)


def pruning(facts: Facts) -> str:
    rows = []
    for stage in PLAYED:
        played = facts.played.get(stage)
        if not played or not played.judged:
            continue
        yes, no = played.validity(pruned=True), played.validity(pruned=False)
        shares = (played.validity(), played.pruned / played.judged, yes, no)
        rows.append((stage, number(played.judged), *(percent(share) or "–" for share in shares),
                     number(played.undecided), number(played.failed)))  # fmt: skip
    if not rows:
        return ""
    heads = ("stage", "judged episodes", "accepted", "dropped a skill", "accepted, of those",
             "accepted, of the others", "undecided", "failed")  # fmt: skip
    return table(heads, rows) + (
        '<p class="soft">An observation, not an experiment: the writer chooses when to drop a skill. In sft the '
        "teacher writes. Undecided (no quorum) and failed (infrastructure) episodes are in no rate.</p>"
    )


def solver(facts: Facts) -> str:
    before, after = facts.result("evaluate", "before"), facts.result("evaluate", "after")
    if not before or not after:
        alone = facts.result("evaluate", "models") or facts.result("evaluate", "score")
        return "" if alone else _missing(facts, "evaluate")
    overall = Pair("overall", before["mean"], after["mean"], _interval(before), _interval(after))
    figures = [figure("Overall", charts.pairs([overall]), _solver_caption(facts, overall))]
    for title, name in (("By category", "by_category"), ("By number of steps", "by_steps")):
        a, b = before.get(name) or {}, after.get(name) or {}
        if rows := [Pair(c, a[c], b[c]) for c in a if c in b]:
            figures.append(figure(title, charts.pairs(rows), "Change in percentage points at the right."))
    known = (("before", _passes(before)), ("after", _passes(after)))
    if curves := [Series(name, points) for name, points in known if points]:
        drawn = charts.lines(curves, percent=True, x_label="k")
        figures.append(figure("Pass@k", drawn, "Problems that one of k answers solves, over k."))
    return gallery(figures)


def benchmark(facts: Facts) -> str:
    return models.render(facts)


def _passes(figures: dict[str, Any]) -> list[tuple[float, float | None]]:
    """(k, Pass@k), where they were measured."""
    found = {name: of for name, of in figures.get("measures", {}).items() if name.startswith("pass@")}
    return sorted((float(name.removeprefix("pass@")), of["value"]) for name, of in found.items())


def _solver_caption(facts: Facts, overall: Pair) -> str:
    problems, samples = (facts.result("evaluate", name) for name in ("problems", "samples"))
    size = f"{problems} problems, {samples} answers each"
    a, b = overall.before_interval, overall.after_interval
    if not a or not b:
        return f"{size}; no intervals were recorded."
    if gain := _gain(facts):
        return f"{size}; lines are 95 % intervals of each. {gain[0].upper()}{gain[1:]}."
    verdict = "The intervals are apart." if _apart(a, b) else "The intervals overlap: the change may be chance."
    return f"{size}; lines are 95 % intervals. {verdict}"


def _interval(figures: dict[str, Any]) -> tuple[float, float] | None:
    low_high = figures.get("interval")
    return (low_high[0], low_high[1]) if low_high else None


def _gain(facts: Facts) -> str:
    """The gain, each problem compared with itself; empty where that is not known."""
    paired = facts.result("evaluate", "paired")
    if not paired or not paired["interval"]:
        return ""
    low, high = (100 * end for end in paired["interval"])
    changed = f"{paired['better']} problems better, {paired['worse']} worse, of {paired['problems']}"
    return f"gain {100 * paired['difference']:+.1f} points [{low:+.1f}, {high:+.1f}], problem by problem: {changed}"


def _apart(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return b[0] > a[1] or b[1] < a[0]


def skills(facts: Facts) -> str:
    skills = facts.result("acquire", "skills")
    if not skills:
        return _missing(facts, "acquire")
    rows = [(c, float(n), "") for c, n in sorted(skills.items(), key=lambda item: -item[1])]
    return gallery([figure("Skills by category", charts.bars(rows), "Kept of what the teacher proposed.")])


def sample_problems(facts: Facts) -> str:
    if not facts.samples:
        return _missing(facts, "synthesize")
    shown = "".join(trajectories.render(s, opened=i == 0) for i, s in enumerate(facts.samples))
    return (
        '<p class="soft">Picked by rule, not by hand; the rule is each one\'s heading. Open one to read every turn.</p>'
        + shown
    )


def problems(facts: Facts) -> str:
    return browser.render(facts)


def failures(facts: Facts) -> str:
    return "".join(_causes(stage, facts.played[stage]) for stage in PLAYED if stage in facts.played)


def _causes(stage: str, played: Played, top: int = 8) -> str:
    if not played.causes:
        return ""
    common = played.causes.most_common(top)
    rest = sum(played.causes.values()) - sum(n for _, n in common)
    told = [*common, *([("other causes", rest)] if rest else [])]
    rows = [(text(cause[:200]), number(n), number(n / played.episodes, percent=True)) for cause, n in told]
    return (
        f"<h3>{stage}: {number(sum(played.causes.values()))} of {number(played.episodes)} episodes</h3>"
        f"{table(('cause', 'episodes', 'of all'), rows)}<br>"
    )


def configuration(facts: Facts) -> str:
    return f"<details><summary>config.yaml</summary><pre>{text(facts.config_text)}</pre></details>"


@dataclass(frozen=True)
class Section:
    title: str
    """Its heading; empty: none."""
    body: Callable[[Facts], str]
    """HTML, of which every text of the run is escaped; empty: the section is left out."""

    def html(self, facts: Facts) -> str:
        body = self.body(facts)
        return f"<h2>{text(self.title)}</h2>{body}" if self.title and body else body


SECTIONS = [
    Section("", headline),
    Section("Stages", stages),
    Section("What it took", taken),
    Section("The data set", dataset),
    Section("Gates", gates),
    Section("Training the proposer (MGPO)", proposer_training),
    Section("The curriculum", curriculum),
    Section("Validity and pruning", pruning),
    Section("An adversary against the judges", adversary),
    Section("The solver, before and after", solver),
    Section("On the benchmark", benchmark),
    Section("Training the solver", solver_training),
    Section("Learning the loop (SFT)", cloning),
    Section("The skill library", skills),
    Section("Sample problems and how they were written", sample_problems),
    Section("Problems to look through", problems),
    Section("What did not become a problem, and why", failures),
    Section("Configuration", configuration),
]
"""In the order of the page."""


# ---------------------------------------------------------------- pieces


def _missing(facts: Facts, stage: str) -> str:
    how = {
        "not run": f"Stage {stage} has not run",
        "part done": f"Stage {stage} is part done and has left nothing to show here yet",
        "done": f"Stage {stage} is done and left nothing to show here",
    }[facts.status(stage)]
    return f'<p class="missing">{how}.</p>'


def _partly(facts: Facts, stage: str) -> str:
    return f'<p class="missing">Stage {stage} is part done.</p>' if facts.status(stage) == "part done" else ""


def _difficulty(facts: Facts, category: str) -> str:
    of_it = [p["pass_at_k"] for p in facts.provenance if p["category"] == category]
    values = [1 - rho for rho in of_it if rho is not None]
    return f"mean difficulty {number(sum(values) / len(values), True)}" if values else "none was probed"
