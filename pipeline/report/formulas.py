"""Formulas in untrusted text: LaTeX between `$…$`, `$$…$$`, `\\(…\\)` or `\\[…\\]` as MathML, which browsers show
without script or network.

Invariant: what goes out is elements and attributes of the lists here, with their values checked, and escaped text: what
latex2mathml makes of a hostile formula (links, styles, raw tags) never reaches the page. What is no formula, or cannot
be read as one, is shown as it stands. A sum of money (`$5 and $7`) is no formula. Work is bounded: by the length of a
formula and their number in a text, and macros, which may grow without end, are not expanded.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from itertools import islice
from xml.etree.ElementTree import Element

from latex2mathml.converter import Converter

from pipeline.report.charts import text as escaped

_LONGEST = 1_000
_PATTERN = re.compile(
    rf"(?<!\\)(?:\$\$(?P<block>[^$]{{1,{_LONGEST}}})\$\$|\\\[(?P<bracket>(?:[^\\]|\\[^\[\]]){{1,{_LONGEST}}}?)\\\]"
    rf"|\\\((?P<paren>(?:[^\\]|\\[^()]){{1,{_LONGEST}}}?)\\\)"
    rf"|\$(?![\s$])(?P<inline>(?:[^$\n\\]|\\.){{1,{_LONGEST}}}?)(?<!\s)\$(?![\d$]))",
    re.DOTALL,
)
_MACROS = re.compile(r"\\(?:def|let|gdef|edef|xdef|newcommand|renewcommand|providecommand|require)\b")
_COMMAND = re.compile(r"\\[a-zA-Z]")
_FORMULAS = 200
"""In a text; what comes after them is shown as it stands."""
_MOST = 2_000
"""Elements of a formula."""
_WIDE = 36
"""Characters of a piece that may be wider than a phone: it is put into a box that scrolls."""

_TAGS = frozenset(
    (
        *("mrow", "mi", "mn", "mo", "mtext", "mspace", "mfrac", "msqrt", "mroot", "msub", "msup", "msubsup", "munder"),
        *("mover", "munderover", "mtable", "mtr", "mtd", "mstyle", "mphantom", "mpadded"),
    )
)
_LENGTH = r"-?[0-3]?(?:\.\d{1,4})?(?:em|ex)"
_WORDS = {
    "stretchy": "true|false",
    "fence": "true|false",
    "separator": "true|false",
    "accent": "true|false",
    "movablelimits": "true|false",
    "displaystyle": "true|false",
    "form": "prefix|infix|postfix",
    "mathvariant": "normal",
    "scriptlevel": r"[+-]?[0-3]",
    "linethickness": "0|0em|0px",
    "columnalign": "(?:left|right|center| ){1,200}",
    "width": _LENGTH,
    "lspace": _LENGTH,
    "rspace": _LENGTH,
    "minsize": _LENGTH,
    "maxsize": _LENGTH,
}
_VALUES = {name: re.compile(f"(?:{pattern})") for name, pattern in _WORDS.items()}
_BREAKS = frozenset("=<>≤≥≠≈≡∈→⇒⟹±+−-×⋅,;")
"""Operators before which a line may break."""


class _Unreadable(Exception):
    """It is no formula that can be shown."""


def typeset(value: str) -> str:
    """HTML of a text: escaped, with its formulas as MathML."""
    parts, at = [], 0
    for found in islice(_PATTERN.finditer(value), _FORMULAS):
        kind = found.lastgroup or ""
        parts.append(escaped(value[at : found.start()]))
        parts.append(_formula(found[kind], kind in ("block", "bracket")) or escaped(found[0]))
        at = found.end()
    return "".join([*parts, escaped(value[at:])])


def typeset_answer(value: str) -> str:
    """The same of an answer, which may be a formula as a whole, without marks."""
    if _PATTERN.search(value) or not _COMMAND.search(value) or len(value) > _LONGEST:
        return typeset(value)
    return _formula(value, False) or escaped(value)


def _formula(latex: str, block: bool) -> str | None:
    """A formula, or None for what cannot be shown as one."""
    if _MACROS.search(latex):
        return None
    try:
        (row,) = Converter().convert_to_element(latex)
        shown = "<wbr />".join(_math(piece, block) for piece in _pieces(list(row)))
    except Exception:  # whatever its parser raises for what is no LaTeX; the source is shown in its place
        return None
    return f'<span class="block">{shown}</span>' if block else shown


def _pieces(row: list[Element]) -> Iterator[list[Element]]:
    """A formula cut where its line may break: browsers do not break within one."""
    if sum(1 for e in row for _ in e.iter()) > _MOST or not row:
        raise _Unreadable
    piece: list[Element] = []
    for element in row:
        if piece and element.tag == "mo" and _told(element) in _BREAKS:
            yield piece
            piece = []
            element.set("form", "infix")  # it stands first, and is no sign
        piece.append(element)
    yield piece


def _math(piece: list[Element], block: bool) -> str:
    style = ' displaystyle="true"' if block else ""
    math = f"<math{style}>{''.join(map(_markup, piece))}</math>"
    wide = sum(len(_told(part)) for e in piece for part in e.iter()) > _WIDE
    return f'<span class="wide" tabindex="0">{math}</span>' if wide else math


def _told(element: Element) -> str:
    """The text of one element; the converter writes characters as entities."""
    return html.unescape(element.text or "")


def _markup(element: Element) -> str:
    tag, told = element.tag, _told(element)
    boxed = tag == "menclose" and element.get("notation") == "box"  # which browsers do not draw
    if boxed:
        tag = "mrow"
    if tag not in _TAGS or (tag == "mi" and told.startswith("\\")):  # a command that nobody knows
        raise _Unreadable
    attributes = "".join(
        f' {name}="{value}"' for name, value in element.items() if name in _VALUES and _VALUES[name].fullmatch(value)
    )
    mark = ' class="boxed"' if boxed else ""
    return f"<{tag}{mark}{attributes}>{escaped(told)}{''.join(map(_markup, element))}</{tag}>"
