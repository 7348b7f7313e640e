"""The report's first lines: what happened, in words, and whether it is good.

Invariant: better and worse are said only where an interval of the difference says so: of the items that both models
answered where they are kept, else as if the two were measured on different problems.
"""

from __future__ import annotations

import math
from typing import Literal

from pipeline.report.charts import number, text
from pipeline.report.facts import Facts
from pipeline.store.run_stages import RUN_STAGES

Way = Literal["up", "down", "level"]
_COLOURS = {"up": "good", "down": "bad", "level": "soft"}


def opening(facts: Facts) -> str:
    """A paragraph of HTML."""
    sentences = [_made(facts), _stopped(facts), _measured(facts)]
    way: Way = "level"
    if (gain := _gain(facts)) is not None:
        way, low, high, difference = gain
        told = {"up": "got better", "down": "got worse", "level": "did not measurably change"}[way]
        points = (
            f"{100 * difference:+.1f} points on the benchmark (95 % interval {100 * low:+.1f} to {100 * high:+.1f})"
        )
        advice = " Look at the data set and at solve.lr before you use it." if way == "down" else ""
        sentences.append(f'The solver <b class="{_COLOURS[way]}">{told}</b>: {points}.{advice}')
    said = " ".join(sentence for sentence in sentences if sentence)
    return f'<p class="opening {way}">{said}</p>' if said else ""


def _made(facts: Facts) -> str:
    if "synthesize" not in facts.results:
        return ""
    rho = facts.pass_at_k()
    hard = f", {number(sum(r < 0.5 for r in rho))} of which the prober fails more often than not" if rho else ""
    unsolved = facts.result("synthesize", "unsolved")
    apart = f"; {number(unsolved)} more are valid and no prober solves them" if unsolved else ""
    by = facts.result("synthesize", "ended_by")
    early = by not in (None, "problems")  # an earlier version says nothing
    ended = f" It stopped writing at its target of {by}, before that of problems." if early else ""
    rejected = sum(p.get("decision", "accepted") != "accepted" for p in facts.provenance)
    unchecked = f" Nobody was to check them, and the committee rejects {number(rejected)} of them." if rejected else ""
    return f"The run made {number(len(facts.provenance))} problems{hard}{apart}.{unchecked}{ended}"


def _stopped(facts: Facts) -> str:
    """Where a run that is not done has come to."""
    if set(facts.results) == {"evaluate"}:
        return ""  # models were measured alone: nothing else was asked for
    todo = [stage for stage in RUN_STAGES if stage not in facts.results]
    return f"It is not done: {text(todo[0])} comes next." if todo and facts.results else ""


def _measured(facts: Facts) -> str:
    """What each model that was measured alone has, and which differ."""
    models = facts.result("evaluate", "models") or {}
    if not models:
        return ""
    means = ", ".join(f"{text(name)} {number(found['mean'], True)}" for name, found in models.items())
    pairs = facts.result("evaluate", "pairs") or {}
    apart = [f for f in pairs.values() if f["interval"] and not f["interval"][0] <= 0 <= f["interval"][1]]
    told = f"{number(len(apart))} of {number(len(pairs))} pairs differ" if apart else "no two are shown to differ"
    return f"Measured: {means}; {told}."


def _gain(facts: Facts) -> tuple[Way, float, float, float] | None:
    """(which way, low, high, the difference) of the solver after against before; None where it was not measured."""
    before, after = facts.result("evaluate", "before"), facts.result("evaluate", "after")
    if not before or not after:
        return None
    paired = facts.result("evaluate", "paired")  # an earlier version wrote none
    if paired and paired["problems"]:
        (low, high), difference = paired["interval"], paired["difference"]
    elif before.get("interval") and after.get("interval"):
        difference = after["mean"] - before["mean"]
        half = math.hypot(*((figures["interval"][1] - figures["interval"][0]) / 2 for figures in (before, after)))
        low, high = difference - half, difference + half
    else:
        return None
    return "up" if low > 0 else "down" if high < 0 else "level", low, high, difference
