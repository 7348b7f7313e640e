"""What became of the problems that could have been rows: a count of each gate, and the first problems that it marked.

Invariant: each problem is in one row of the table, but for those of the data set that a gate marks and keeps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.report.charts import number, text
from pipeline.report.facts import Facts
from pipeline.report.formulas import typeset, typeset_answer
from pipeline.report.pieces import table
from pipeline.scoring.selection import UNSOLVED


def render(facts: Facts) -> str:
    left_out = facts.result("synthesize", "left_out")
    if left_out is None:  # an earlier version wrote none
        return ""
    unsolved, kept = facts.result("synthesize", "unsolved") or 0, facts.result("synthesize", "accepted")
    counts = [*sorted(left_out.items(), key=lambda item: -item[1]), (UNSOLVED, unsolved)]
    whole = sum(n for _, n in counts) + kept
    marked = facts.result("synthesize", "marked") or {}
    kept_and_marked = [(f"in the data set, marked: {gate}", n) for gate, n in marked.items()]
    rows = [
        (text(name), number(n), number(n / max(whole, 1), percent=True))
        for name, n in (("in the data set", kept), *counts, *kept_and_marked)
    ]
    taken = "handed in, and" if facts.config.synthesize.filter == "none" else "accepted by the committee, and"
    examples = facts.result("synthesize", "examples") or {}
    return table((taken, "problems", "of them"), rows) + "".join(_shown(*one) for one in examples.items())


def _shown(gate: str, examples: Sequence[Mapping[str, str]]) -> str:
    problems = "".join(
        f'<div class="problem">{typeset(one["question"])}</div><p>Answer: <b>{typeset_answer(one["answer"])}</b></p>'
        for one in examples
    )
    many = "an example" if len(examples) == 1 else f"{number(len(examples))} examples"
    return f"<details><summary>{text(gate)}: {many}</summary>{problems}</details>"
