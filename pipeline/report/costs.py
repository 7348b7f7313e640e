"""What a run took: time, sampled tokens and money of each stage, and of a problem of the data set.

Invariant: a figure that nothing has noted is a dash, never zero; money is what endpoints with a price were paid.
"""

from __future__ import annotations

from pipeline.report.charts import number, text
from pipeline.report.facts import Facts
from pipeline.report.pieces import duration, table
from pipeline.store.run_stages import RUN_STAGES

_NONE = "–"


def render(facts: Facts) -> str:
    done = [stage for stage in RUN_STAGES if stage in facts.results]
    if not done:
        return ""
    paid = any(facts.spent.values())
    heads = ("stage", "time", "of all", "episodes", "sampled tokens", *(("paid",) if paid else ()))
    rows = [_row(facts, stage, paid) for stage in done]
    return table(heads, rows) + _of_a_problem(facts, paid)


def _row(facts: Facts, stage: str, paid: bool) -> tuple[str, ...]:
    took, played = facts.results[stage]["wall_s"], facts.played.get(stage)
    episodes, tokens = (number(played.episodes), number(played.tokens)) if played else (_NONE, _NONE)
    share = number(took / facts.wall_s(), percent=True) if facts.wall_s() else _NONE
    money = (_dollars(facts.spent[stage]) if stage in facts.spent else _NONE,) if paid else ()
    return text(stage), duration(took), share, episodes, tokens, *money


def _of_a_problem(facts: Facts, paid: bool) -> str:
    problems = len(facts.provenance)
    if not problems:
        return ""
    written = [
        f"{number(value)} {unit}"
        for key, unit in (("seconds_per_problem", "s of writing"), ("tokens_per_problem", "sampled tokens"))
        if (value := facts.result("synthesize", key)) is not None
    ]
    if (usd := facts.result("synthesize", "usd_per_problem")) is not None:
        written.append(_dollars(usd))
    whole = [f"{number(facts.wall_s() / problems)} s"] + (
        [_dollars(sum(facts.spent.values()) / problems)] if paid else []
    )
    of_synthesis = (
        f"A problem of the data set took {', '.join(written)}; " if written else "A problem of the data set took "
    )
    return f'<p class="soft">{text(of_synthesis)}with all finished stages {text(", ".join(whole))}.</p>'


def _dollars(usd: float) -> str:
    return f"${number(usd)}"
