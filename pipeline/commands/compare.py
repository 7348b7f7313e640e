"""`propose compare`: two results on one benchmark, held against each other item by item; and the page of two runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.commands import target
from pipeline.commands.tables import columns
from pipeline.records import Failure
from pipeline.scoring import items, measures
from pipeline.store.identity import differences
from pipeline.store.rundir import RunDir

_SHOWN = 20
_FIGURES = {
    "problems": "problems", "validity": "validity", "mean_pass_at_k": "Pass@k of the prober",
    "solver_before": "solver before", "solver_after": "solver after",
}  # fmt: skip


def compare(a: str, b: str) -> dict[str, Any]:
    """Raises Failure where one is no result, or the two share no problem."""
    first, second = (items.read(_items(name)) for name in (a, b))
    found = measures.compare(items.items_of(first), items.items_of(second), seed=0)
    if not found["problems"]:
        raise Failure(f"{a} and {b}: no problem was answered in both; expected results on one benchmark")
    asked = dict(zip(first.column("id").to_pylist(), first.column("question").to_pylist(), strict=True))
    changed = [{**item, "question": asked[item["id"]]} for item in found["changed"]]
    return {**found, "changed": changed, "verdict": measures.verdict(found)}


def _items(name: str) -> Path:
    """Of a run the items of its last model: after training, or the only one."""
    if Path(name).is_file():
        return Path(name)
    root = target.existing(name)
    steps = RunDir.look(root).steps("evaluate")
    if not steps:
        raise Failure(f"{root}: was not evaluated; run `propose evaluate` first, or name an {items.FILE}")
    return steps[-1] / items.FILE


def report(a: str, b: str, page: Path | None) -> dict[str, Any]:
    """Write the page of two runs side by side; the keys are `keys.REPORT_TWO_KEYS`."""
    from pipeline import report

    (one, first), (other, second) = (RunDir.read(target.existing(name)) for name in (a, b))
    if one.root.resolve() == other.root.resolve():
        raise Failure(f"{a} and {b}: one run; expected two")
    page = page or Path(f"report-{one.root.name}-{other.root.name}.html")
    compared: dict[str, Any] | str
    try:
        compared = compare(a, b)
    except Failure as e:
        compared = str(e)
    summary, of_other = report.write_comparison(one, other, compared, page)
    settings = differences(first.model_dump(mode="json"), second.model_dump(mode="json"))
    return {
        "page": str(page), "a": summary, "b": of_other,
        "settings": [{"field": field, "a": was, "b": now} for field, was, now in settings],
        "compared": None if isinstance(compared, str) else compared,
        "why_not": compared if isinstance(compared, str) else None,
    }  # fmt: skip


def render_report(found: dict[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [("", "A", "B")]
    for key, label in _FIGURES.items():
        values = [found[run][key] for run in ("a", "b")]
        if any(v is not None for v in values):
            rows.append((label, *("-" if v is None else f"{v:,}" if key == "problems" else f"{100 * v:.1f} %"
                                  for v in values)))  # fmt: skip
    differ = ", ".join(d["field"] for d in found["settings"]) or "nothing"
    words = found["compared"]["verdict"] if found["compared"] else f"not compared: {found['why_not']}"
    return f"{columns(rows, right=(1, 2))}\n\nSolvers: {words}.\nSettings that differ: {differ}.\nPage: {found['page']}"


def render(found: dict[str, Any]) -> str:
    lines = [
        f"A {100 * found['a']:.1f} %, B {100 * found['b']:.1f} %; {found['better']} problems better, "
        f"{found['worse']} worse, {found['only_a'] + found['only_b']} in one of the two only",
    ]
    for item in (*found["changed"][: _SHOWN // 2], *found["changed"][_SHOWN // 2 :][-_SHOWN // 2 :]):
        lines.append(
            f"  {100 * item['a']:5.0f} % → {100 * item['b']:3.0f} %  {' '.join(item['question'].split())[:90]}"
        )
    return "\n".join([found["verdict"], *lines])
