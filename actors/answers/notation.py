r"""Which texts the sandbox's parsers may be given, and how: nothing in them may be read over.

Invariant: pure. The parsers drop what they do not know: subscripts of numbers, overlines, a second colon, units,
labels, words. So a text is a formula only if every sign and every command in it is one that they are known to read;
any other text is none, and undecided, however much of it could be read.
"""

from __future__ import annotations

import re

from actors.answers.words import is_grid
from actors.answers.writing import WORDS_IN_MATHS, label, signs, unwrap

_WORDS_OF_MATHS = """
pi sqrt log ln sin cos tan cot sec csc arcsin arccos arctan asin acos atan sinh cosh tanh exp abs min max gcd lcm
mod floor ceil frac infty infinity oo inf cup cap and or times cdot pm alpha beta gamma delta theta phi
"""
MATH_WORDS = frozenset(_WORDS_OF_MATHS.split())
"""Words that belong to a formula and make no prose."""

_KNOWN_COMMANDS = """
frac dfrac tfrac cfrac sqrt pi cdot times div pm mp le leq leqslant ge geq geqslant lt gt ne neq infty cup cap
setminus backslash in mathbb mathbf mathrm text emptyset varnothing begin end left right lbrace rbrace lvert rvert
vert lfloor rfloor lceil rceil sum prod int lim to binom log ln exp lg sin cos tan cot sec csc arcsin arccos arctan
sinh cosh tanh min max gcd lor land alpha beta gamma delta epsilon varepsilon zeta eta theta kappa lambda mu nu xi
rho sigma tau phi varphi chi psi omega Gamma Delta Theta Lambda Sigma Phi Psi Omega displaystyle limits quad qquad
circ operatorname dx mid
"""
_COMMANDS = frozenset(_KNOWN_COMMANDS.split())
_WORD_ALONE = re.compile(r"(?<![A-Za-z\\])(?:to|of|is|if|it|vs|pm|am|no)(?![A-Za-z])", re.IGNORECASE)
"""Two letters that are a word, which a parser would take for a product."""
_NUMBERS_SIDE_BY_SIDE = re.compile(r"[0-9.]\s+[0-9.]")
_SUBSCRIPT = re.compile(r"(?:(?<![A-Za-z])[A-Za-z]|\\[A-Za-z]+)\s*_\s*(?:\{[^{}]*\}|[A-Za-z0-9])")
_BOUND = re.compile(r"\\(?:sum|prod|int|lim|min|max)(?:\\limits)?\s*_")
_REPEATING = re.compile(r"([0-9]+)\.([0-9]*)\\overline\{([0-9]+)\}")
_WRITINGS = (
    (r"(?<![A-Za-z\\])([A-Za-z])_([0-9]{2,}|[A-Za-z]{2,})", r"\1_{\2}"),
    (r"\\frac\s*([0-9])\s*([0-9])(?![0-9])", r"\\frac{\1}{\2}"),
    (r"\\log_\s*([0-9])\s+", r"\\log_{\1} "),
    (r"\\(?:lor|land)(?![A-Za-z])", lambda m: " or " if m[0] == "\\lor" else " and "),
    (r"\\(?:qquad|quad|[ ,;:!])|~", " "),
    (r"²", "^2"),
    (r"³", "^3"),
)


def prepared(text: str) -> str:
    """The formula as the parsers get it."""
    text = signs(unwrap(text))
    if label(text)[0] is not None and text.startswith("\\"):
        text = label(text)[1]
    text = WORDS_IN_MATHS.sub(_word, text)
    text = _REPEATING.sub(_fraction, text)
    for pattern, replacement in _WRITINGS:
        text = re.sub(pattern, replacement, text)
    return str(text).strip().removesuffix(".").strip()


def _word(match: re.Match[str]) -> str:
    """A letter in upright type, or the "or" between two inequalities; any other word stays what it is, and refused."""
    inner = match[1].strip()
    if re.fullmatch(r"[A-Za-z]?", inner):
        return f" {inner} "
    return f" {inner} " if inner in ("or", "and") else match[0]


def _fraction(match: re.Match[str]) -> str:
    whole, head, period = match.groups()
    top, bottom = int(whole + head + period) - int(whole + head), 10 ** len(head) * (10 ** len(period) - 1)
    return rf"\frac{{{top}}}{{{bottom}}}"


def is_formula(text: str) -> bool:
    """No words in it but those of maths, as many brackets opened as closed, and nothing that a parser would drop."""
    text = prepared(text)
    if is_grid(text) and "\\" not in text:
        return False
    unpaired = re.sub(r"\\(?:left|right)\s*\\?.", "", text)
    if sum(map(unpaired.count, "([{")) != sum(map(unpaired.count, ")]}")):
        return False
    commands = re.findall(r"\\([A-Za-z]+|.)", text)
    if not all(c in _COMMANDS or c in "{}|\\" or c.removeprefix("cdot") == "" for c in commands):
        return False
    symbols = re.sub(r"\\(?:begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+", " ", text)
    words = re.findall(r"[A-Za-z]{3,}", symbols)
    if not all(word.lower() in MATH_WORDS for word in words) or _WORD_ALONE.search(text):
        return False
    return not _is_read_over(text)


def _is_read_over(text: str) -> bool:
    bounds = _BOUND.sub(" ", text)
    subscripts = _SUBSCRIPT.sub(" ", bounds)
    unread = "_" in re.sub(r"\\log\s*_", " ", subscripts) or re.search(r"[:;?@#%&$\"'`~]", _cells(text))
    labelled = label(text)[0] is not None
    return bool(
        unread or labelled or _NUMBERS_SIDE_BY_SIDE.search(text) or re.search(r"[^\x00-\x7f√π×·÷≤≥≠∅∞±∪∩∈ℝ]", text)
    )


def _cells(text: str) -> str:
    """Without the marks between the cells of a matrix."""
    return re.sub(r"\\begin\s*\{([bpBvV]?matrix|array|cases)\}.*?\\end\s*\{\1\}", lambda m: m[0].replace("&", ""), text)
