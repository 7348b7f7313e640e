"""Texts in the form in which two of them are compared.

Invariant: `tokens` are the same for two texts that differ in case, blanks, punctuation, Unicode forms or the way that
LaTeX is written; `shape` also where they differ in numbers; `clauses` where their clauses stand in another order.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

from pipeline.skills.scripts import UNSPACED

_LATEX = (
    (r"\\(?:left|right|displaystyle|textstyle|limits|bigl|bigr|big|Big|Bigl|Bigr)\b|\\[,;:!> ]|[$~]|\\[()\[\]]", " "),
    (r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|mathbb|operatorname\*?|boxed)\s*\{([^{}]*)\}", r" \1 "),
    (r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r" (\1)/(\2) "),
    (r"\\[dtc]?frac\s*(\w)\s*(\w)", r" (\1)/(\2) "),
    (r"\\(?:cdot|times)\b|[×·⋅]", " * "),
    (r"\\(?:leq?|leqslant)\b|≤", " <= "),
    (r"\\(?:geq?|geqslant)\b|≥", " >= "),
    (r"\\(?:neq?)\b|≠", " != "),
    (r"\\(?:dots|ldots|cdots)\b|…", " ... "),
    (r"\\pi\b|π", " pi "),
    (r"\\sqrt\s*\{([^{}]*)\}|√\(?(\w+)\)?", r" sqrt \1\2 "),
    (r"(?<=\d)[,\u00a0\u202f](?=\d{3}(?!\d))|(?<=\d)\\,(?=\d{3}(?!\d))|(?<=\d)\{,\}(?=\d{3})", ""),
    (r"\^\{(\w)\}", r"^\1"),
    (r"[−–—]", "-"),
    (r"\\([A-Za-z]+)", r" \1 "),
)
_REWRITES = tuple((re.compile(pattern), by) for pattern, by in _LATEX)
_TOKEN = re.compile(rf"\d+(?:\.\d+)?|[{UNSPACED}]|[^\W\d_{UNSPACED}]+|[+*/^=<>%!]|(?<![^\W\d_])-(?=\s*[\w(])")
_CLAUSE = re.compile(r"[.?!;:]\s+|\n+|,\s+")


def tokens(text: str) -> list[str]:
    """Words, numbers and signs of operations, in one way of writing."""
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    for pattern, by in _REWRITES:
        text = pattern.sub(by, text)
    return [_number(token) if token[0].isdigit() else token for token in _TOKEN.findall(text.casefold())]


def _number(token: str) -> str:
    """3.50 as 3.5, and 3.0 as 3."""
    whole, point, part = token.partition(".")
    part = part.rstrip("0")
    return f"{whole.lstrip('0') or '0'}{point if part else ''}{part}"


def numbers(tokens: Sequence[str]) -> list[str]:
    return [token for token in tokens if token[0].isdigit()]


def shape(tokens: Sequence[str]) -> list[str]:
    """With 0 for every number."""
    return ["0" if token[0].isdigit() else token for token in tokens]


def clauses(text: str) -> list[str]:
    """The clauses as plain texts, in an order that does not depend on theirs; a leading "and" or "then" is none of
    theirs."""
    found = (tokens(part) for part in _CLAUSE.split(text))
    plain = (" ".join(words[1:] if words and words[0] in ("and", "then", "so") else words) for words in found)
    return sorted(clause for clause in plain if clause)


def digest(parts: Sequence[str]) -> int:
    """64 bits of a sequence of texts."""
    return int.from_bytes(hashlib.blake2b("\x1f".join(parts).encode(), digest_size=8).digest())


def shingles(words: Sequence[str], size: int) -> set[str]:
    return {" ".join(words[i : i + size]) for i in range(max(1, len(words) - size + 1))}
