"""The browser of problems: a sample of each sort, with filters, its votes and its trajectory turn by turn.

Invariant: filters are radio buttons and style rules, so nothing runs on the page, and without them (on paper) all that
is here is shown. What is not embedded is counted and linked: files of the run, beside the page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pipeline.report import trajectories
from pipeline.report.charts import number, text
from pipeline.report.facts import Browsed, Facts
from pipeline.report.strata import DIFFICULTIES, Sort

_BYTES = 2 << 20
"""Of all embedded problems together."""
_VALUES = 12
"""Buttons of a filter; of more values the rarest share the last."""
_OTHERS = "others"
_FILTERS = ("category", "kind of answer", "prober", "solved", "committee")
"""As the fields of `Sort`."""

CSS = (
    "".join(
        f".browser:has(#f{i}v{j}:checked) .p:not(.f{i}v{j}){{display:none}}\n"
        for i in range(len(_FILTERS))
        for j in range(_VALUES)
    )
    + """.browser { counter-reset:p } .browser .p { counter-increment:p }
.count::after { content:counter(p) " shown." }
fieldset { border:0; margin:6px 0; padding:0; display:flex; flex-wrap:wrap; gap:4px 6px; align-items:center }
legend { float:left; color:var(--soft); font-size:13px; min-width:9em; padding:0 }
fieldset label { position:relative; display:inline-block; font-size:13px; border:1px solid var(--rule);
  border-radius:12px; padding:1px 10px; background:var(--card); cursor:pointer }
fieldset input { position:absolute; opacity:0; inset:0; margin:0; cursor:pointer }
fieldset label:has(:checked) { border-color:var(--c1); color:var(--c1) }
fieldset label:has(:focus-visible) { outline:2px solid var(--c1) }
@media print { fieldset,.count { display:none } .browser .p { display:block !important } }
"""
)


def render(facts: Facts) -> str:
    found = facts.browsed
    if found is None or not found.entries:
        return ""
    names = [_names(found, i) for i in range(len(_FILTERS))]
    shown, size = [], 0
    for sort, sample in found.entries:
        marks = [f"f{i}v{_index(names[i], value)}" for i, value in enumerate(sort)]
        html = trajectories.render(sample, opened=False, marks=["p", *marks], tags=sort)
        if size + len(html) <= _BYTES:
            shown.append(html)
            size += len(html)
    return (
        f'<div class="browser"><p class="soft">{_told(facts, found, len(shown))}</p>'
        f"{''.join(_filter(i, title, names[i]) for i, title in enumerate(_FILTERS))}"
        f'{"".join(shown)}<p class="soft count"></p></div>'
    )


def _told(facts: Facts, found: Browsed, shown: int) -> str:
    whole = sum(found.counts.values())
    files = [name for name in _LINKED if facts.run.path(*name.split("/")).exists()]
    links = ", ".join(f'<a href="{name}">{name}</a>' for name in (*files, f"steps/{found.stage}/"))
    return (
        f"{number(shown)} of the {number(whole)} problems that were submitted in {text(found.stage)}, some of each of "
        f"{number(len(found.counts))} sorts, drawn by a digest of their names. All of them, beside this page: {links}."
    )


_LINKED = ("dataset/problems.jsonl", "dataset/unsolved.jsonl", "dataset/provenance.jsonl")


def _names(found: Browsed, field: int) -> list[str]:
    """The values of a field of those that are shown, the commonest first; difficulties from hard to easy."""
    counts = Counter(sort[field] for sort, _ in found.entries)
    if field == Sort._fields.index("difficulty"):
        return [name for name in DIFFICULTIES if counts[name]]
    names = sorted(counts, key=lambda name: (-counts[name], name))
    return names if len(names) <= _VALUES else [*names[: _VALUES - 1], _OTHERS]


def _index(names: Sequence[str], value: str) -> int:
    return names.index(value) if value in names else len(names) - 1


def _filter(i: int, title: str, names: Sequence[str]) -> str:
    if len(names) < 2:
        return ""
    buttons = [f'<label><input type="radio" name="f{i}" checked />all</label>'] + [
        f'<label><input type="radio" name="f{i}" id="f{i}v{j}" />{text(name)}</label>' for j, name in enumerate(names)
    ]
    return f"<fieldset><legend>{title}</legend>{''.join(buttons)}</fieldset>"
