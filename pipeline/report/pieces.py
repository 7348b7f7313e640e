"""What the sections of a page are put together from."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pipeline.report.charts import number, text


def figure(title: str, chart: str, caption: str) -> str:
    return f"<figure><h3>{text(title)}</h3>{chart}<figcaption>{text(caption)}</figcaption></figure>"


def gallery(figures: Sequence[str]) -> str:
    return f'<div class="plots">{"".join(figures)}</div>'


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], words: Collection[int] = (0,)) -> str:
    """Cells are HTML; columns hold numbers, but for those at `words`."""
    marks = ["" if i in words else " class=n" for i in range(len(heads))]
    top = "".join(f"<th{mark}>{text(name)}</th>" for mark, name in zip(marks, heads, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td{mark}>{cell}</td>' for mark, cell in zip(marks, row, strict=True))}</tr>" for row in rows
    )
    return f"<table><tr>{top}</tr>{body}</table>"


def tenths(shares: Sequence[float]) -> list[tuple[str, float]]:
    """How many are 0, up to 0.1, up to 0.2 …"""
    bins = [("0", float(sum(s == 0 for s in shares)))]
    return bins + [(f"{(i + 1) / 10:g}", float(sum(i / 10 < s <= (i + 1) / 10 for s in shares))) for i in range(10)]


def percent(value: float | None) -> str | None:
    return None if value is None else number(value, percent=True)


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
