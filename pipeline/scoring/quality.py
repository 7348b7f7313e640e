"""What can be wrong with a row by itself: a gate each, and whether it keeps a row out of a data set.

Invariant: the gates look at the text alone and are pure; every row with a fault is counted under each of its gates.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass

from pipeline.records import AnswerKind
from pipeline.skills.scripts import UNSPACED

MOST_CHARS = 20_000
FEWEST_WORDS = 2

_SPACE = re.compile(r"\s+")
_SMALL_WORDS = {
    "en": "the of and to in is a that for are what with how many each has if on by find from be",
    "de": "der die das und ist ein eine wie viele von mit den für auf nicht zu hat wenn sind",
    "fr": "le la les des et est une que dans pour combien quel de du sur il par avec sont",
    "es": "el los las y es una que en para cuántos cuál por con del se un tiene son",
    "it": "il gli e di che è una per quanti con del non sono quale si nel ha",
    "pt": "o os as e de que uma para quantos qual com do em não são um tem",
}
"""Words of a language that its texts can hardly do without."""
_FUNCTION = {name: frozenset(words.split()) for name, words in _SMALL_WORDS.items()}
_SCRIPTS = {
    "CYRILLIC": "ru", "HANGUL": "ko", "ARABIC": "ar", "HEBREW": "he", "GREEK": "el", "DEVANAGARI": "hi", "THAI": "th",
    "HIRAGANA": "ja", "KATAKANA": "ja", "CJK": "zh",
}  # fmt: skip
_MATHS = re.compile(r"\$[^$]*\$|\\[a-zA-Z]+|[A-Za-z]\s*[=<>+*/^_-]")


@dataclass(frozen=True)
class Gate:
    name: str
    bars: bool
    """A row that it marks is kept out of a data set; else it is only counted, for somebody to look at."""


CONTROL = Gate("control characters", True)
EMPTY = Gate("too short", True)
LONG = Gate("too long", True)
LEAK = Gate("answer stated in the question", True)
LANGUAGE = Gate("another language", False)
UNUSED = Gate("unused skill", False)
"""A skill that was active when the row was written, and that it does not need: only where it came from tells that."""
GATES = (CONTROL, EMPTY, LONG, LEAK, LANGUAGE, UNUSED)


def faults(question: str, answer: str, kind: AnswerKind, languages: Collection[str] = ()) -> list[Gate]:
    """The gates that mark a row. `languages` are those that it may be in, as two letters; none: any."""
    found = []
    if _controls(question) or _controls(answer):
        found.append(CONTROL)
    if len(_words(question)) < FEWEST_WORDS or not answer.strip():
        found.append(EMPTY)
    if len(question) > MOST_CHARS or (kind != "code" and len(answer) > MOST_CHARS):
        found.append(LONG)
    if leaks(question, answer, kind):
        found.append(LEAK)
    if languages and (read := language(question)) is not None and read not in languages:
        found.append(LANGUAGE)
    return found


def bar(question: str, answer: str, kind: AnswerKind) -> Gate | None:
    """The first gate that keeps a row out; None for a row that may stay."""
    return next((gate for gate in faults(question, answer, kind) if gate.bars), None)


def _controls(text: str) -> bool:
    """Signs that no text is meant to hold: control and private-use characters, halves of pairs, replacements of what
    could not be read. Line breaks and tabs are text, and so are joiners inside a word or an emoji."""
    return any(
        c == "�" or (unicodedata.category(c) in ("Cc", "Co", "Cs") and c not in "\n\t\r")
        or (unicodedata.category(c) == "Cf" and c not in "\u200c\u200d\u200e\u200f\u00ad\u2060\ufeff")
        for c in text
    )  # fmt: skip


def _words(text: str) -> list[str]:
    return re.findall(rf"[{UNSPACED}]|[^\W_]+", text)


# ---------------------------------------------------------------- leaks

_ANSWER = r"answer|result|correct (?:choice|option)|antwort|réponse|respuesta|answer key"
_SOLUTION = r"solution|lösung"
_IS = r"\s*(?:(?:is|are|=|:|equals|lautet|ist|est|es)\s*)+"
_OPENS = r"\(?\s*[\"'$*`]*"
_NO_OTHER = r"(?![\w]|[.,]\d|\s*(?:or|/|,|;)\s)"
_ENDS = r"(?=[^\S\n]*(?:[.,;:!?)\]\"'*$`\n]|$))"
_SAYS = rf"\b(?:(?:{_ANSWER}){_IS}|(?:{_SOLUTION})\s*[:=]\s*){_OPENS}"
_MAY_SAY = rf"\b(?:{_ANSWER}|{_SOLUTION}){_IS}{_OPENS}"
"""What follows is the answer only where it ends the statement: not in "a solution is 4 times as dense"."""
_NOT_SAID = re.compile(r"(?:if|suppose|assum\w*|whether|when|where|form|unless)\b[^.?!\n]*$", re.IGNORECASE)


def leaks(question: str, answer: str, kind: AnswerKind) -> bool:
    """Whether the question says its answer: boxed, after words such as "the answer is", or, where the answer is itself
    a text of some length, word for word. A number that the question merely has is none."""
    said, text = _flat(answer), _flat(question)
    if not said or kind == "code":
        return kind == "code" and len(said) > 40 and said in text
    literal = re.escape(said)
    if re.search(rf"boxed\s*\{{\s*{literal}\s*\}}|####\s*{literal}(?![\w.])", text):
        return True
    letter, written = len(said) == 1 and said.isalpha(), unicodedata.normalize("NFKC", question)
    exact = re.escape(unicodedata.normalize("NFKC", answer).strip())
    ended = rf"(?i:{_MAY_SAY}){exact if letter else f'(?i:{exact})'}{_NO_OTHER}{_ENDS}"
    for pattern, of in ((ended, written), *(() if letter else ((rf"{_SAYS}{literal}{_NO_OTHER}", text),))):
        if any(not _NOT_SAID.search(of[: match.start()]) for match in re.finditer(pattern, of)):
            return True
    return kind in ("text", "math") and len(_words(answer)) >= 6 and len(said) >= 30 and said in text


def _flat(text: str) -> str:
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", text)).strip().casefold()


# ---------------------------------------------------------------- language


def language(text: str) -> str | None:
    """Two letters of the language that a text is in, by its script and its small words; None where too little says."""
    words = _words(_MATHS.sub(" ", text))
    letters = [c for word in words for c in word if c.isalpha()]
    if len(letters) < 12:
        return None
    scripts = [unicodedata.name(c, "").partition(" ")[0] for c in letters]
    if any(name in ("HIRAGANA", "KATAKANA") for name in scripts):
        return "ja"
    common = max(set(scripts), key=scripts.count)
    if common != "LATIN":
        return _SCRIPTS.get(common) if scripts.count(common) > len(scripts) / 2 else None
    small = [word.lower() for word in words]
    counts = {name: sum(word in known for word in small) for name, known in _FUNCTION.items()}
    first, second = sorted(counts.values(), reverse=True)[:2]
    best = max(counts, key=lambda name: counts[name])
    return best if first >= 2 and first > second else None
