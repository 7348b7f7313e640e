"""Plain tables and amounts for people: aligned columns, no wider than what they hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_WIDTH = 78


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Rows of cells in aligned columns; those numbered in `right` are aligned right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def outline(tree: Mapping[str, Any], shown: Callable[[str], str]) -> str:
    """Names and values of a result, a line each; what is too deep or too long for one line stands below its name, set
    in. Texts are written as `shown` says."""
    width = max(map(len, tree), default=0)
    lines = []
    for name, value in tree.items():
        line = f"{name:<{width}}  {_inline(value, shown)}"
        if _is_listing(value):
            lines += [name, *(f"  {' '.join(_inline(one, shown).split())}" for one in value)]
            continue
        nested = isinstance(value, Mapping) and any(isinstance(v, Mapping) or _is_listing(v) for v in value.values())
        if isinstance(value, Mapping) and (nested or len(line) > _WIDTH):
            lines += [name, *(f"  {below}" for below in outline(value, shown).splitlines())]
        else:
            lines.append(line)
    return "\n".join(lines)


def _is_listing(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)


def _inline(value: Any, shown: Callable[[str], str]) -> str:
    if value is None or value in ([], {}, ""):
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_inline(v, shown)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        pair = len(value) == 2 and all(isinstance(v, float) for v in value)
        return (" to " if pair else ", ").join(_inline(v, shown) for v in value)
    return f"{value:.4g}" if isinstance(value, float) else shown(str(value))


def duration(seconds: float) -> str:
    """4 s · 12 min 30 s · 3 h 5 min · 2 d 4 h"""
    whole = round(seconds)
    for unit, size, below, small in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{whole} s"


def ago(moment: float) -> str:
    """How long ago a moment was, in its largest unit."""
    return " ".join(duration(max(0.0, time.time() - moment)).split()[:2])


def megabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
