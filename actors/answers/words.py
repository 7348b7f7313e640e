r"""Answers that are words: choices, names, sequences of words, lists of strings, JSON values, grids, prose.

Invariant: pure. Equal only if nothing differs but case, blanks, quotes, articles and the marks at the end of a
sentence. Different if both are plain, that is names, words or lists, and differ. Prose may say one thing in two ways:
unknown, unless no word is shared.
"""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import chain
from typing import Any

from actors.answers.values import Judgement
from actors.answers.writing import WORDS_IN_MATHS, signs, unwrap

CHOICE_WORDS = frozenset({"even", "odd", "yes", "no", "true", "false", "是", "否"})
_CHOICES = CHOICE_WORDS | set("abcdefghij")
_SAME_WORD = {"true": "yes", "false": "no", "是": "yes", "否": "no"}

_REPLACEMENTS = (
    (r"\\(?:to|rightarrow|longrightarrow|Rightarrow|implies)(?![A-Za-z])|->|=>|⟶|⇒", "→"),
    (r"\\leftarrow(?![A-Za-z])|<-", "←"),
    (r"\\(?:,|;|:|!|quad|qquad| )(?![A-Za-z])|~", " "),
    (r"\\([_%&#{}])", r"\1"),
    ("[“”„«»]", '"'),
    ("[‘’]", "'"),
)
_FUNCTION_WORDS = """
is are was were be been has have had do does did can could will would should may might must of in on at by for from
with without to and or but nor not no none neither either than then if when while because so since as that this
these those there it its they he she we you i their his her which who what whose always never only every each all
any some more less most least about after before between into over under
"""
_PROSE = frozenset(_FUNCTION_WORDS.split())
"""Words that make a sentence out of names."""
_MAX_DEPTH = 20
_OPTION = re.compile(r"(?m)^\s*([A-J])[).:]\s|\(([A-J])\)")


def options(question: str) -> tuple[str, tuple[str, ...]]:
    """What stands before the options of a question that names some, and their letters, each once."""
    found = list(_OPTION.finditer(question))
    letters = dict.fromkeys(m[1] or m[2] for m in found)
    return question[: found[0].start()] if found else question, tuple(letters)


def choice(text: str) -> str:
    """ "(B)", "b.", "Option B", "\\text{B}", "B) Paris" -> "b"."""
    text = WORDS_IN_MATHS.sub(r"\1", unwrap(text))
    text = re.sub(r"^(?:option|answer|choice)\b[\s:]*", "", text.strip(" $.*").lower())
    if lettered := re.match(r"\(?([a-j])[).:]\s", text):
        return lettered[1]
    return text.strip(" ()[]{}.:*!")


def compare_choices(a: str, b: str, *, number: bool) -> Judgement:
    """Letters and words that are choices are told apart. What stands behind a letter is not known here, and prose may
    say either, so these are unknown; a word like "even" is no number, which `number` says one of the two is."""
    one, other = choice(a), choice(b)
    if one == other:
        return "equal" if one else "unknown"
    if one in _CHOICES and other in _CHOICES:
        return "equal" if _SAME_WORD.get(one, one) == _SAME_WORD.get(other, other) else "different"
    return "different" if {one, other} & CHOICE_WORDS and number else "unknown"


# ---------------------------------------------------------------- text


def compare_text(a: str, b: str) -> Judgement:
    a, b = (_normal(text) for text in (a, b))
    grids = _rows(a), _rows(b)
    if is_grid(a) or is_grid(b):
        return _compare_grids(*grids)
    trees = _tree(a), _tree(b)
    if None not in trees:
        return "equal" if trees[0] == trees[1] else "different"
    words_a, words_b = _words(a), _words(b)
    if words_a == words_b:
        return "equal" if words_a else "unknown"
    if _may_say_the_same(a, b, words_a, words_b):
        return "unknown"
    numbers_a, numbers_b = ([w for w in words if w[-1].isdigit()] for words in (words_a, words_b))
    if numbers_a != numbers_b and [w for w in words_a if w not in numbers_a] == [
        w for w in words_b if w not in numbers_b
    ]:
        return "different"  # the same sentence of other numbers
    prose = any(not _is_plain(text, words) for text, words in ((a, words_a), (b, words_b)))
    return "unknown" if prose and set(words_a) & set(words_b) else "different"


def _normal(text: str) -> str:
    text = WORDS_IN_MATHS.sub(r"\1", signs(unwrap(text)))
    for pattern, replacement in _REPLACEMENTS:
        text = re.sub(pattern, replacement, text)
    text = "\n".join(" ".join(line.split()) for line in text.replace("\\\\", "\n").split("\n")).strip()
    quoted = re.fullmatch(r"\"([^\"]*)\"|'([^']*)'", text)
    return (quoted[1] or quoted[2] or "").strip() if quoted else text


def _words(text: str) -> list[str]:
    """Words without the marks around them, and the signs that count: "C" is not "C++", -5 is not 5, ".#" not "#."."""
    found = []
    for token in re.split(r"\s+|(?<![0-9]),|,(?![0-9])|(?<=[^\W\d_])-(?=[^\W\d_])", text.casefold()):
        if any(c.isalnum() for c in token):
            token = token.strip(".;:!?'\"()")
            found.append(token.replace(",", "") if re.fullmatch(r"[0-9]{1,3}(?:,[0-9]{3})+", token) else token)
        elif token not in ("", ";"):
            found.append(token)
    return [word for word in found if word not in ("a", "an", "the") or len(found) == 1]


def _is_plain(text: str, words: list[str]) -> bool:
    """Names, words, numbers, or a list of single words, whatever they are."""
    listed = len(words) > 1 and len(re.findall(r",\s", text)) == len(words) - 1
    return listed or not (set(words) & _PROSE or re.search(r"[^\W\d_][.?!;:]\s+\w", text))


def _may_say_the_same(a: str, b: str, words_a: list[str], words_b: list[str]) -> bool:
    """One is a part of the other's name, "Paris" of "Paris, France", or only blanks between letters differ."""
    if "".join(words_a) == "".join(words_b):
        return not "".join(words_a).isdigit()
    names = len(words_a) != len(words_b) and all(word[0].isupper() for word in f"{a} {b}".split())
    short, long = sorted((set(words) for words in (words_a, words_b)), key=len)
    return names and bool(short) and short < long


# ---------------------------------------------------------------- grids, lists, JSON


def is_grid(text: str) -> bool:
    """Lines of several cells each."""
    rows = _rows(text)
    return len(rows) > 1 and min(map(len, rows)) > 1


def _rows(text: str) -> list[list[str]]:
    return [line.casefold().split() for line in text.split("\n")]


def _compare_grids(a: list[list[str]], b: list[list[str]]) -> Judgement:
    """The same cells in other rows: on one line, perhaps, so that nothing can be told."""
    if a == b:
        return "equal"
    return "unknown" if list(chain(*a)) == list(chain(*b)) else "different"


_TOKEN = re.compile(r"\s*(?:([\[\](){},:])|\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'|([^\[\](){},:\"']+))")


def _tree(text: str) -> Any:
    """A list, an object or a tuple as JSON or Python writes it, its leaves normalised; None for anything else. Read
    from tokens, nothing is evaluated: ("[", item, ...) or ("{", (key, value), ...), names sorted."""
    if text[:1] not in tuple("[({") or text[-1:] not in tuple("])}"):
        return None
    tokens, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            return None
        mark, *leaves = match.groups()
        tokens.append((mark, None if mark else _leaf(next(x for x in leaves if x is not None), match[4] is not None)))
        at = match.end()
    try:
        tree, rest = _item(tokens, 0, 0)
    except (ValueError, IndexError):
        return None
    return tree if rest == len(tokens) else None


def _leaf(text: str, bare: bool) -> str:
    text = " ".join(text.casefold().split())
    if re.fullmatch(r"[+-]?[0-9]{1,200}(?:\.[0-9]{1,200})?", text):
        return str(Fraction(text))
    return {"none": "null"}.get(text, text) if bare else text


def _item(tokens: list[tuple[str | None, str | None]], at: int, depth: int) -> tuple[Any, int]:
    mark, leaf = tokens[at]
    if mark is None:
        return leaf, at + 1
    if mark not in "[({" or depth > _MAX_DEPTH:
        raise ValueError
    close = {"[": "]", "(": ")", "{": "}"}[mark]
    items: list[Any] = []
    at += 1
    while tokens[at][0] != close:
        item, at = _item(tokens, at, depth + 1)
        if mark == "{" and tokens[at][0] == ":":
            value, at = _item(tokens, at + 1, depth + 1)
            item = (item, value)
        items.append(item)
        if tokens[at][0] == ",":
            at += 1
        elif tokens[at][0] != close:
            raise ValueError
    if mark == "{":
        return ("{", *sorted(items, key=repr)), at + 1
    return ("[", *items), at + 1
