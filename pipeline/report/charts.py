"""Small charts as SVG text: no dependency, no script, colours from the page's CSS variables (light and dark).

Invariant: whatever text comes in goes out escaped, and a missing value is a gap, never a zero.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 8, 24

Point = tuple[float, float | None]


@dataclass(frozen=True)
class Series:
    label: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Pair:
    """A figure before and after, with intervals where they are known."""

    label: str
    before: float
    after: float
    before_interval: tuple[float, float] | None = None
    after_interval: tuple[float, float] | None = None


def text(value: object) -> str:
    """Untrusted text for HTML: escaped; what UTF-8 or HTML cannot carry is shown as the replacement character."""
    clean = str(value).encode("utf-8", "replace").decode()
    return html.escape("".join(c if c >= " " or c in "\n\t" else "�" for c in clean))


def number(value: float, percent: bool = False) -> str:
    if percent:
        return f"{100 * value:.1f} %"
    if value == int(value) and abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def lines(series: Sequence[Series], percent: bool = False, zero: bool = True, x_label: str = "step") -> str:
    """Curves over steps. `zero` keeps the axis honest by starting it at zero; `percent` fixes it to 0-100 % at most."""
    values = [y for s in series for _, y in s.points if y is not None]
    xs = [x for s in series for x, _ in s.points]
    low, high = min(values), max(values)
    ticks = _ticks(min(low, 0.0) if zero or percent else low, max(high, 0.0) if zero else high)
    x0, x1 = min(xs), max(xs)

    def px(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * ((x - x0) / (x1 - x0) if x1 > x0 else 0.5)

    def py(y: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - ticks[0]) / (ticks[-1] - ticks[0])

    parts = [_grid(ticks, py, percent)]
    for x in sorted({x0, x1, *(t for t in _ticks(x0, x1) if x0 < t < x1 and t == int(t))}):
        parts.append(f'<text class="tick" x="{px(x):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{number(x)}</text>')
    for i, s in enumerate(series, start=1):
        known = sorted(s.points)
        for run in _runs(known):
            path = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in run)
            parts.append(f'<polyline class="line c{i}" points="{path}"/>')
        if len(known) <= 60:
            for x, y in known:
                if y is not None:
                    tip = f"{s.label}, {x_label} {number(x)}: {number(y, percent)}"
                    parts.append(
                        f'<circle class="dot c{i}" cx="{px(x):.1f}" cy="{py(y):.1f}" r="2.6">'
                        f"<title>{text(tip)}</title></circle>"
                    )
    legend = _legend([s.label for s in series]) if len(series) > 1 else ""
    return legend + _svg(parts, HEIGHT, ", ".join(s.label for s in series))


def columns(counts: Sequence[tuple[str, float]]) -> str:
    """A histogram: one column a bin, its count on top."""
    ticks = _ticks(0, max(c for _, c in counts))

    def py(y: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM - 10) * y / ticks[-1]

    parts = [_grid(ticks, py, False)]
    step = (WIDTH - LEFT - RIGHT) / len(counts)
    for i, (label, count) in enumerate(counts):
        x = LEFT + i * step
        parts.append(
            f'<rect class="bar c1" x="{x + 2:.1f}" y="{py(count):.1f}" width="{step - 4:.1f}" '
            f'height="{py(0) - py(count):.1f}" rx="2"><title>{text(label)}: {number(count)}</title></rect>'
            f'<text class="tick" x="{x + step / 2:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{text(label)}</text>'
        )
        if count:
            parts.append(
                f'<text class="value" x="{x + step / 2:.1f}" y="{py(count) - 4:.1f}" text-anchor="middle">'
                f"{number(count)}</text>"
            )
    return _svg(parts, HEIGHT, "histogram")


def bars(rows: Sequence[tuple[str, float, str]], percent: bool = False) -> str:
    """Horizontal bars: label, value, a note behind the value."""
    top = 1.0 if percent else max(max(v for _, v, _ in rows), 1e-12)
    height = 30 * len(rows) + 6
    parts = []
    for i, (label, value, note) in enumerate(rows):
        y = 30 * i + 4
        width = (WIDTH - 20) * value / top
        behind = f' <tspan class="note">{text(note)}</tspan>' if note else ""
        parts.append(
            f'<text class="label" x="4" y="{y + 10}">{text(label)} · {number(value, percent)}{behind}</text>'
            f'<rect class="track" x="4" y="{y + 15}" width="{WIDTH - 20}" height="6" rx="3"/>'
            f'<rect class="bar c1" x="4" y="{y + 15}" width="{max(width, 0):.1f}" height="6" rx="3"/>'
        )
    return _svg(parts, height, "bars")


def pairs(rows: Sequence[Pair]) -> str:
    """Before and after on one axis from 0 to 100 %, with intervals as thin lines."""
    left, right, row = 96, 52, 34
    height = row * len(rows) + 26

    def px(v: float) -> float:
        return left + (WIDTH - left - right) * min(max(v, 0.0), 1.0)

    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(
            f'<line class="grid" x1="{px(tick):.1f}" x2="{px(tick):.1f}" y1="2" y2="{height - 20}"/>'
            f'<text class="tick" x="{px(tick):.1f}" y="{height - 6}" text-anchor="middle">{100 * tick:.0f} %</text>'
        )
    for i, r in enumerate(rows):
        y = row * i + row / 2
        parts.append(f'<text class="label" x="4" y="{y + 4:.1f}">{text(r.label)}</text>')
        for cls, value, interval, dy, name in (
            ("c2", r.before, r.before_interval, -5, "before"),
            ("c1", r.after, r.after_interval, 5, "after"),
        ):
            if interval:
                parts.append(
                    f'<line class="interval {cls}" x1="{px(interval[0]):.1f}" x2="{px(interval[1]):.1f}" '
                    f'y1="{y + dy:.1f}" y2="{y + dy:.1f}"/>'
                )
            tip = f"{r.label}, {name}: {number(value, True)}"
            parts.append(
                f'<circle class="dot {cls}" cx="{px(value):.1f}" cy="{y + dy:.1f}" r="4">'
                f"<title>{text(tip)}</title></circle>"
            )
        gain = f"{100 * (r.after - r.before):+.1f}"
        parts.append(f'<text class="value" x="{WIDTH - 4}" y="{y + 4:.1f}" text-anchor="end">{gain}</text>')
    return _legend(["after", "before"]) + _svg(parts, height, "before and after")


def ranges(
    rows: Sequence[tuple[str, float, tuple[float, float] | None, Sequence[float]]], percent: bool = False
) -> str:
    """Means with their intervals on one axis from zero: label, mean, interval (None: not known), the single values."""
    left, row = 96, 26
    height = row * len(rows) + 26
    seen = [v for _, mean, interval, values in rows for v in (mean, *(interval or ()), *values)]
    ticks = _ticks(min(0.0, *seen), max(seen))

    def px(v: float) -> float:
        return left + (WIDTH - left - 16) * (v - ticks[0]) / (ticks[-1] - ticks[0])

    parts = [
        f'<line class="grid" x1="{px(t):.1f}" x2="{px(t):.1f}" y1="2" y2="{height - 20}"/>'
        f'<text class="tick" x="{px(t):.1f}" y="{height - 6}" text-anchor="middle">{_tick(t, percent)}</text>'
        for t in ticks
    ]
    for i, (label, mean, interval, values) in enumerate(rows):
        y = row * i + row / 2
        parts.append(f'<text class="label" x="4" y="{y + 4:.1f}">{text(label)}</text>')
        if interval:
            parts.append(
                f'<line class="interval c1" x1="{px(interval[0]):.1f}" x2="{px(interval[1]):.1f}" '
                f'y1="{y:.1f}" y2="{y:.1f}"/>'
            )
        parts += [f'<circle class="dot c5" cx="{px(v):.1f}" cy="{y:.1f}" r="1.8"/>' for v in values]
        tip = f"{label}: {number(mean, percent)}"
        parts.append(
            f'<circle class="dot c1" cx="{px(mean):.1f}" cy="{y:.1f}" r="4"><title>{text(tip)}</title></circle>'
        )
    return _svg(parts, height, "means and intervals")


def _svg(parts: Sequence[str], height: int, label: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{text(label)}">' + "".join(parts) + "</svg>"


def _legend(labels: Sequence[str]) -> str:
    keys = "".join(f'<span><i class="c{i}"></i>{text(label)}</span>' for i, label in enumerate(labels, start=1))
    return f'<div class="legend">{keys}</div>'


def _grid(ticks: Sequence[float], py: Callable[[float], float], percent: bool) -> str:
    return "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py(t):.1f}" y2="{py(t):.1f}"/>'
        f'<text class="tick" x="{LEFT - 5}" y="{py(t) + 3:.1f}" text-anchor="end">{_tick(t, percent)}</text>'
        for t in ticks
    )


def _tick(value: float, percent: bool) -> str:
    return f"{100 * value:.4g} %" if percent else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers that span the range."""
    size = max(abs(low), abs(high))
    if high - low <= 1e-9 * size or size < 1e-30:  # flat
        high = low + (size if size >= 1e-30 else 1.0)
    rough = (high - low) / 4
    power = math.floor(math.log10(rough))
    step = next(m * 10.0**power for m in (1, 2, 2.5, 5, 10) if m * 10.0**power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 2 - power) for i in range(first, last + 1)]


def _runs(points: Sequence[Point]) -> list[list[tuple[float, float]]]:
    """The stretches of points without a missing value."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None:
            runs.append([])
        else:
            runs[-1].append((x, y))
    return [r for r in runs if len(r) > 1]
