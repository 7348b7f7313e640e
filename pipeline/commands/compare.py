"""`propose compare`: two results on one benchmark, held against each other item by item."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.commands import target
from pipeline.records import Failure
from pipeline.scoring import items, measures
from pipeline.store.rundir import RunDir

_SHOWN = 20


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
