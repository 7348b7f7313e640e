"""report.html: one self-contained page, readable without network or script, in light and dark."""

from __future__ import annotations

from datetime import UTC, datetime

from pipeline.report import browser
from pipeline.report.charts import text
from pipeline.report.facts import Facts
from pipeline.report.opening import opening
from pipeline.report.sections import SECTIONS
from pipeline.report.style import CSS


def render(facts: Facts) -> str:
    """The whole page."""
    moments = [row["time"] for rows in facts.rows.values() for row in rows if "time" in row]
    last = f" · last step {datetime.fromtimestamp(max(moments), UTC):%Y-%m-%d %H:%M UTC}" if moments else ""
    sections = [html for section in SECTIONS if (html := section.html(facts))]
    told = f'<p class="soft">Run {text(facts.run.root.name)}{last}</p>{_damaged(facts)}{opening(facts)}'
    return document(facts.config.name, told + "\n".join(sections))


def _damaged(facts: Facts) -> str:
    """Above all figures."""
    lines = "".join(f"<li>{text(line)}</li>" for line in facts.damaged)
    return (
        f'<div class="missing">Not as the run wrote it, so that figures may be without it:<ul>{lines}</ul></div>'
        if lines
        else ""
    )


def document(title: str, body: str) -> str:
    """A page with this title and this HTML below it."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)} · report</title><style>{CSS}{browser.CSS}</style></head><body>"
        f"<main><h1>{text(title)}</h1>{body}</main></body></html>\n"
    )
