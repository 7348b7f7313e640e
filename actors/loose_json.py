"""JSON as language models write it: LaTeX with one backslash, raw line breaks, a comma too many, a bracket too few.

Invariant: text that is JSON means what JSON says, with one exception: in prose (`prose`) an escape that begins a LaTeX
command is that command, because `"\\frac"` is no form feed. What can only be meant one way is read, and noted; what
can be meant in two ways is `Unclear`, never guessed. Nothing is evaluated.

`loads` leaves each string as it was written between its quotes; who knows what the string is for then reads it with
`plain` (code, names) or with `prose` (questions and answers).
"""

from __future__ import annotations

import json
import re
from typing import Any

_TOKEN = re.compile(
    r'"(?P<double>(?:[^"\\]|\\.|\\\Z)*)(?P<end>"|\Z)'
    r"|'(?P<single>(?:[^'\\]|\\.|\\\Z)*)(?:'|\Z)"
    r"|(?P<comma>,)(?=\s*[}\]])"
    r"|\b(?P<word>True|False|None)\b",
    re.DOTALL,
)
_WORDS = {"True": "true", "False": "false", "None": "null"}
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.|\\\Z)*(?:"|\Z)|[\[\]{}]', re.DOTALL)

_ESCAPE = re.compile(
    r"\\(?P<pair>u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|\\u(?P<code>[0-9a-fA-F]{4})"
    r"|\\(?P<run>[A-Za-z]+)"
    r"|\\(?P<sign>.)"
    r"|(?P<raw>[\x00-\x1f])",
    re.DOTALL,
)
_CONTROL = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}

_LATEX = """
nabla natural ncong ne nearrow neg neq newline nexists ngeq ngtr ni nleftarrow nleq nleqslant nless nmid nolimits
nonumber normalsize not notag notin nparallel nprec nrightarrow nsim nsubseteq nsucc nsupseteq nu nvdash nwarrow
tag tan tanh tau tbinom text textbf textcolor textdegree textit textnormal textrm textsc textsf textstyle texttt textup
tfrac therefore theta thickapprox thicksim thinspace tilde times tiny to top triangle triangledown triangleleft
trianglelefteq triangleq triangleright trianglerighteq twoheadrightarrow
rVert raisebox rangle rbrace rbrack rceil rfloor rho right rightarrow rightharpoonup rightleftharpoons rm root rtimes
rule rvert
"""
_COMMANDS = frozenset(_LATEX.split())
"""Commands of LaTeX that begin with the letter of an escape which text may well hold."""
_ALSO_WORDS = frozenset({"ne", "ni", "nu"})
"""What stands behind their n may begin a line: "e = 2.7"."""

_FORBIDDEN = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
HOW = 'in JSON a backslash is written twice ("\\\\frac{1}{2}"), a line break as \\n'


class Unclear(ValueError):
    """The text can be read in more than one way, or not at all; says what, and how to write it."""


def loads(text: str, notes: set[str], *, close: bool = True) -> Any:
    """The value, its strings as they were written between the quotes. `close`: brackets missing at the end are added.

    Raises ValueError; RecursionError where it is nested too deep.
    """

    def token(m: re.Match[str]) -> str:
        if m["comma"]:
            notes.add("comma")
            return ""
        if m["word"]:
            notes.add("word")
            return _WORDS[m["word"]]
        if m["single"] is not None:
            notes.add("quotes")
            return json.dumps(m["single"])
        return json.dumps(m["double"]) if m["end"] else m[0]

    fixed = _TOKEN.sub(token, text).strip()
    decoder = json.JSONDecoder(parse_constant=_no_number)
    try:
        value, end = decoder.raw_decode(fixed)
    except json.JSONDecodeError as e:
        missing = _missing(fixed)
        if not close or not missing or e.pos < len(fixed):
            raise
        value, end = decoder.raw_decode(fixed + missing)
        notes.add("brackets")
    if rest := fixed[end:].strip():
        if rest.strip("}] \n\t;,"):
            raise ValueError("more text behind the object")
        notes.add("brackets")
    return value


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON")


def _missing(text: str) -> str:
    """The brackets that close what is open at the end."""
    opened: list[str] = []
    for found in _BRACKETS.findall(text):
        if found in ("{", "["):
            opened.append("}" if found == "{" else "]")
        elif found in ("}", "]") and (not opened or opened.pop() != found):
            return ""
    return "".join(reversed(opened))


def plain(raw: str, notes: set[str]) -> str:
    """A string of JSON; a backslash before what is no escape stays one."""

    def escape(m: re.Match[str]) -> str:
        if m["run"] and m["run"][0] in _CONTROL and not (m["run"][0] in "bf" and len(m["run"]) > 1):
            return _CONTROL[m["run"][0]] + m["run"][1:]
        return _escape(m, notes)

    return _ESCAPE.sub(escape, raw)


def prose(raw: str, notes: set[str]) -> str:
    """A question or an answer: text with LaTeX, without control characters but for line breaks. Raises Unclear."""
    found: set[str] = set()
    text = _prose(raw, found, rows=False)
    if "latex" in found and r"\\" in raw and not re.search(r"\\\\[A-Za-z]", raw):
        text = _prose(raw, found, rows=True)  # who writes \frac with one backslash ends a row with two
    notes |= found
    return clean(text, notes)


def _prose(raw: str, notes: set[str], rows: bool) -> str:
    def escape(m: re.Match[str]) -> str:
        if m["sign"] == "'":
            notes.add("backslash")
            return "'"
        if m["sign"] == "\\" and rows and re.match(r"[\s\d&-]|\Z", raw[m.end() : m.end() + 1]):
            return r"\\"
        run = m["run"]
        if not run or run[0] not in "nrt":
            return _escape(m, notes)
        if _is_command(run, raw, m.start()):
            notes.add("latex")
            return "\\" + run
        return _CONTROL[run[0]] + run[1:]

    return _ESCAPE.sub(escape, raw)


def _is_command(run: str, raw: str, at: int) -> bool:
    """Whether the escape at `at` and the letters behind it are LaTeX rather than a line break or a tab and a word."""
    before = raw[:at]
    in_math = bool(before.replace(r"\$", "").count("$") % 2) or any(
        before.rfind(opening) > before.rfind(closing) for opening, closing in ((r"\(", r"\)"), (r"\[", r"\]"))
    )
    if run not in _COMMANDS:
        return in_math and run[0] in "rt" and len(run) > 1
    if run not in _ALSO_WORDS or in_math or not before.strip():
        return True
    if before[-1] in " \t" and not re.search(r"\\\\[A-Za-z]", raw):
        raise Unclear(f"\\{run} is a line break or LaTeX; {HOW}")
    return False


def _escape(m: re.Match[str], notes: set[str]) -> str:
    """What an escape stands for that means the same everywhere."""
    if m["raw"]:
        if m["raw"] == "\n":
            notes.add("line break")
        return m["raw"]
    if m["pair"] or m["code"]:
        decoded: str = json.loads(f'"{m[0]}"')
        return decoded
    if m["sign"] in ('"', "\\", "/"):
        return m["sign"]
    if m["run"] in ("b", "f"):
        return _CONTROL[m["run"]]
    notes.add("latex" if m["run"] else "backslash")
    return m[0]


def clean(text: str, notes: set[str]) -> str:
    """Text of a problem without control characters but for line breaks. Raises Unclear for one that says nothing."""
    text = text.replace("\r\n", "\n")
    if "\t" in text:
        notes.add("tab")
        text = text.expandtabs(4)
    if bad := _FORBIDDEN.search(text):
        raise Unclear(f"holds the control character U+{ord(bad[0]):04X}; {HOW}")
    return text


def dumps(value: Any) -> str:
    """JSON that `plain` and `prose` read back as it is: no escape stands before a letter that could make it LaTeX."""
    return re.sub(
        r"(?<!\\)((?:\\\\)*)\\([bfnrt])",
        lambda m: f"{m[1]}\\u{ord(_CONTROL[m[2]]):04x}",
        json.dumps(value, ensure_ascii=False),
    )
