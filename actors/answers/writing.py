r"""How answers are written down: wrappers, signs that mean the same, labels.

Invariant: pure, and nothing that carries meaning is removed. `unwrap` takes off what stands around a whole answer
($...$, \boxed{...}, **...**); `signs` writes characters that mean the same in one way (x⁴ as x^{4}, 10,\!080 as
10,080). Neither drops a character that a reader would read.
"""

from __future__ import annotations

import re

INVISIBLE = re.compile("[\u200b-\u200f\u2060\ufeff]")
_FULL_WIDTH = {0xFF01 + i: 0x21 + i for i in range(94) if not chr(0x21 + i).isdigit()}
_FULL_WIDTH |= {0x3000: 0x20, 0x3001: 0x2C, 0x3002: 0x2E}
"""Letters and marks as Chinese and Japanese texts have them."""
_TEXT = (
    r"\\(?:text|textbf|textit|textrm|textsf|texttt|textnormal|mathrm|mathbf|mathit|mathsf|mathtt|mbox|bm|boldsymbol)"
)
WORDS_IN_MATHS = re.compile(rf"{_TEXT}\s*\{{([^{{}}]*)\}}")
_WRAPPERS = (
    re.compile(r"\$\$([^$]+)\$\$"),
    re.compile(r"\$([^$]+)\$"),
    re.compile(r"\\\(((?:(?!\\[()]).)+)\\\)", re.DOTALL),
    re.compile(r"\\\[((?:(?!\\[\[\]]).)+)\\\]", re.DOTALL),
    re.compile(r"\*\*((?:(?!\*\*).)+)\*\*", re.DOTALL),
    re.compile(r"\*\*(?!\s)((?:(?!\*\*).|(?<=[\w)\]}])\*\*(?=[\w({\\-]))+)(?<!\s)\*\*", re.DOTALL),
    re.compile(r"```(?:[a-z]*\n)?([^`]+)```"),
    re.compile(r"`([^`]+)`"),
)
_BRACED = re.compile(rf"(?:\\f?boxed|{_TEXT})\s*\{{(.*)\}}", re.DOTALL)
_INLINE = re.compile(r"\$(?=\S)([^$]*[^$\s\\])\$(?![0-9])")
"""Maths inside a line of text; "$5 and $6" holds none."""

_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ"
_SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₙᵢ"
_LEVEL = "0123456789+-=()ni"
_RAISED = str.maketrans(_SUPERSCRIPTS, _LEVEL)
_LOWERED = str.maketrans(_SUBSCRIPTS, _LEVEL)
_SIGNS = (
    ("[\u00a0\u2000-\u200a\u202f\u205f\u3000]", " "),
    (r"[−–]", "-"),
    (r"\\[$]", "$"),
    (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
    (r"(?<=[0-9])(?:\{,\}|,\\!|\\!,|\\,)\s*(?=[0-9]{3}(?![0-9]))", ","),
    (r"(?<=[0-9])(?:~|\\ )(?=[0-9]{3}(?![0-9]))", " "),
    (r"((?:[0-9]\u0305)+)", r"\\overline{\1}"),
    ("\u0305", ""),
    (r"\^\s*\{?\s*\\circ\s*\}?\s*(?=(?:\\text|\\mathrm)?\s*\{?\s*[CF]\b)", "°"),
    (r"℃", "°C"),
    (r"℉", "°F"),
    (r"\\degree(?![A-Za-z])", "°"),
    (rf"°\s*(?:{_TEXT}\s*\{{\s*([CF])\s*\}}|([CF])\b)", r" degrees \1\2"),
)
_LABEL = re.compile(
    rf"(?:{_TEXT}\s*\{{\s*\(?([A-J])[).:]+\s*\}}|\(([A-J])\)|([A-J])[).](?=\s))"
    r"(?:\\[ ,;:!]|~|\\q?quad(?![A-Za-z])|\s)*(?=\S)"
)
"""(D) before an answer, as multiple choice prints it."""


def unwrap(text: str) -> str:
    """The answer without what stands around the whole of it. Wrappers may be nested: $\\boxed{5}$."""
    text = INVISIBLE.sub("", text).translate(_FULL_WIDTH).strip()
    while True:
        inner = next((m[1] for w in _WRAPPERS if (m := w.fullmatch(text))), None)
        if inner is None and (match := _BRACED.fullmatch(text)) and _balanced(match[1]):
            inner = match[1]
        if inner is None or not inner.strip():
            return text
        text = inner.strip()


def _balanced(text: str) -> bool:
    """No brace closes what was opened before the text."""
    depth = 0
    for brace in re.findall(r"\\\\|\\[{}]|[{}]", text):
        depth += (brace == "{") - (brace == "}")
        if depth < 0:
            return False
    return depth == 0


def signs(text: str) -> str:
    """One way to write what is written in several, for readers of numbers and of formulas alike."""
    text = _INLINE.sub(r"\1", text)
    for pattern, replacement in _SIGNS:
        text = re.sub(pattern, replacement, text)
    text = re.sub(f"[{_SUPERSCRIPTS}]+", lambda m: f"^{{{m[0].translate(_RAISED)}}}", text)
    return re.sub(f"[{_SUBSCRIPTS}]+", lambda m: f"_{{{m[0].translate(_LOWERED)}}}", text)


def label(text: str) -> tuple[str | None, str]:
    r"""The letter of a choice before an answer, and the answer: "\textbf{(D)}\ 12" -> ("D", "12")."""
    match = _LABEL.match(text)
    if match is None or _LABEL.search(text, match.end()):
        return None, text
    rest = text[match.end() :]
    if not match[1] and rest[0] in "+-(":
        return None, text  # (A) - 1 may be a difference
    return match[1] or match[2] or match[3], rest
