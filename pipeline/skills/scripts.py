"""Text in any script: how long it is, and the id of a skill with a title in it.

Invariant: pure. Chinese, Japanese and Korean signs (CJK) carry about what three Latin letters do.
"""

from __future__ import annotations

import re
import unicodedata

UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Signs of scripts that write no blanks between words, for a class of characters."""
_CJK = f"{UNSPACED}\u1100-\u11ff\uac00-\ud7af"
_SIGN = re.compile(f"[{_CJK}]")
LETTERS_PER_SIGN = 3
MAX_ID_CHARS = 64
_MAX_ID_BYTES = 200
"""An id is the name of a folder, which may have 255 bytes."""


def length(text: str) -> int:
    """In Latin letters: what a limit on characters means for a text of any script."""
    return len(text) + (LETTERS_PER_SIGN - 1) * len(_SIGN.findall(text))


def is_cjk(text: str) -> bool:
    """Most of its letters are Chinese, Japanese or Korean."""
    letters = sum(c.isalpha() for c in text)
    return 2 * len(_SIGN.findall(text)) > letters


def skill_id(title: str) -> str | None:
    """Of "Chinese Remainder" chinese_remainder, of "中国剩余定理（二）" 中国剩余定理_二. None for what makes no id: one
    begins with a letter, and holds letters, digits and underscores only."""
    text = title.strip()
    if text.isascii():
        name = re.sub(r"[ -]+", "_", text.lower())
    else:
        plain = "".join("_" if _separates(c) else c for c in text)
        name = re.sub(r"_+", "_", unicodedata.normalize("NFKC", plain).lower()).strip("_")
    whole = re.fullmatch(r"[^\W\d_]\w*", name) is not None
    return name if whole and len(name) <= MAX_ID_CHARS and len(name.encode()) <= _MAX_ID_BYTES else None


def _separates(c: str) -> bool:
    """A blank, a hyphen, or a mark that only a script of its own has (：、（）·): never a dot or a slash."""
    return c in " -\t\u3000" or (not c.isascii() and unicodedata.category(c)[0] in "PZ")
