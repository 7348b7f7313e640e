"""Which candidates are one skill under two names, and which are two under one.

Two skills are one where their names agree, but for grammar and words such as "compute", and what they say has enough
words in common; or where their names differ, and they say the same nearly word for word. MinHash finds whom to hold
against whom, counting decides. Names that differ in one word (largest, smallest) are no two names of one skill, unless
both state the same intent.

Invariant: pure. `groups` puts each candidate into exactly one group, whose first member is the best scored; what groups
there are depends on the candidates and their order alone.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pipeline.records import Skill
from pipeline.skills.scripts import UNSPACED

SAME_NAME, OTHER_NAME, OTHER_INTENT = 0.15, 0.7, 0.6
"""Shares: of the shorter text's words, those of the name aside, where names agree (two words at least); of all pairs of
neighbouring words, of text and of intent, where not."""
_PERMUTATIONS = 64
_WORD = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+")
_LETTER = re.compile(r"[a-z]")
_DROPPED = (
    "isations", "izations", "isation", "ization", "ations", "ation", "ities", "ity", "ages", "age", "ments", "ment",
    "ings", "ing", "ions", "ion", "ances", "ance", "ences", "ence", "ally", "ives", "ive", "als", "al", "ers", "er",
    "ors", "or", "ed", "es", "s", "e",
)  # fmt: skip
_ENDINGS = {
    **dict.fromkeys(("ications", "ication", "ies", "ied"), "y"),
    **dict.fromkeys(_DROPPED, ""),
}
"""Ending -> what it is replaced by; the first that fits."""
_STEM = 3
"""Letters that stay of a word at least."""
_STOP = frozenset((
    "a", "an", "the", "of", "for", "and", "or", "as", "is", "are", "be", "it", "its", "that", "this", "these",
    "those", "then", "than", "so", "when", "where", "which", "what", "how", "given", "must", "may", "can", "will",
    "has", "have", "their", "them", "they", "use", "uses", "used", "using",
))  # fmt: skip
_LINKS = frozenset((
    "to", "from", "in", "into", "by", "with", "on", "at", "between", "per", "over",
))  # fmt: skip
"""They say which way a skill goes, and are no sign that two say the same."""
_SMALL = frozenset((
    "one", "two", "both", "each", "any", "not", "no", "only", "under", "up", "out",
))  # fmt: skip
"""No sign of that either."""
_GENERAL = frozenset((
    "basic", "calculate", "calculating", "calculation", "compute", "computing", "computation", "determine",
    "determining", "evaluate", "evaluating", "exercise", "find", "finding", "method", "problem", "problems",
    "question", "questions", "simple", "skill", "skills", "solve", "solving", "step", "task", "tasks", "technique",
    "value", "values", "number", "numbers", "apply", "applying", "work", "works", "get", "result", "results",
    "题", "求",
))  # fmt: skip
"""Words that say of a skill that it is one."""
_DIRECTED = frozenset(("to", "from", "per", "over", "minus", "into", "by"))
"""In a name, they give its other words an order, and say which way."""


def groups(candidates: Sequence[Skill]) -> list[list[int]]:
    """Places of candidates that are one skill: the best scored first, of equals the first; groups in that order too. Of
    each group the text of its first member is held, of the others none."""
    from datasketch import MinHash, MinHashLSH

    texts: dict[int, _Text] = {}
    near = MinHashLSH(num_perm=_PERMUTATIONS, params=(16, 4))
    empty = MinHash(num_perm=_PERMUTATIONS, seed=1)
    buckets: dict[str, list[int]] = {}
    found: dict[int, list[int]] = {}
    rank: dict[int, int] = {}
    for place in sorted(range(len(candidates)), key=lambda i: -candidates[i].score):
        text, sketch = _text(candidates[place]), empty.copy()
        sketch.update_batch([" ".join(pair).encode() for pair in sorted(text.pairs)])
        others = {*near.query(sketch), *(other for key in (text.stated, *text.keys) for other in buckets.get(key, ()))}
        same = next((first for first in sorted(others, key=rank.__getitem__) if _same(text, texts[first])), None)
        if same is not None:
            found[same].append(place)
            continue
        found[place], rank[place], texts[place] = [place], len(rank), text
        near.insert(place, sketch)
        for key in (text.stated, *text.keys):
            buckets.setdefault(key, []).append(place)
    return list(found.values())


def same(one: Skill, other: Skill) -> bool:
    return _same(_text(one), _text(other))


def alike(one: str, other: str) -> bool:
    """Whether two words are one in two spellings: maths, math, Mathematics."""
    short, long = sorted((_stem(word.casefold()) for word in (one, other)), key=len)
    return short == long or (len(short) > _STEM and long.startswith(short))


# ---------------------------------------------------------------- texts


@dataclass(frozen=True)
class _Text:
    name: tuple[str, ...]
    stated: str
    """Category and intent, which no two skills share."""
    keys: frozenset[str]
    """Two names agree where they share one."""
    words: frozenset[str]
    pairs: frozenset[tuple[str, str]]
    intent: tuple[str, ...]

    @property
    def intents(self) -> frozenset[tuple[str, str]]:
        return _pairs(self.intent)


def _text(skill: Skill) -> _Text:
    words = _words(" ".join((skill.intent, skill.method, skill.difficulty)))
    telling = frozenset(word for word in words if word not in _PLAIN and not _LETTER.fullmatch(word))
    name = _name(skill.id)
    intent = tuple(_words(skill.intent))
    stated = f"{skill.category} = {' '.join(skill.intent.casefold().split())}"
    keys = {_key(skill.id, name)} | _initials(name)
    return _Text(name, stated, frozenset(keys), telling or frozenset(words), _pairs(words), intent)


def _same(one: _Text, other: _Text) -> bool:
    if one.stated == other.stated:
        return True
    if one.keys & other.keys:
        mine, theirs = (text.words - {*one.name, *other.name} or text.words for text in (one, other))
        return len(mine & theirs) >= max(SAME_NAME * min(len(mine), len(theirs)), 2)
    if set(one.name) == set(other.name):  # the same words, another way round
        return False
    if len(one.name) == len(other.name) > 1 and len(set(one.name) ^ set(other.name)) == 2:
        return False
    return _alike(one.pairs, other.pairs) >= OTHER_NAME and _alike(one.intents, other.intents) >= OTHER_INTENT


def _alike(one: frozenset[tuple[str, str]], other: frozenset[tuple[str, str]]) -> float:
    return len(one & other) / max(len(one | other), 1)


def _pairs(words: Sequence[str]) -> frozenset[tuple[str, str]]:
    return frozenset(itertools.pairwise(words)) or frozenset((word, "") for word in words)


def _words(text: str) -> list[str]:
    plain = unicodedata.normalize("NFKC", text).casefold()
    return [_stem(word) for word in _WORD.findall(plain) if word not in _STOP]


def _name(id: str) -> tuple[str, ...]:
    words = [word for word in _WORD.findall(id.casefold()) if word not in _STOP and word not in _LINKS]
    return tuple(_stem(word) for word in words if word not in _GENERAL) or tuple(map(_stem, words)) or (id,)


def _key(id: str, name: tuple[str, ...]) -> str:
    words = _WORD.findall(id.casefold())
    if _DIRECTED.isdisjoint(words):
        return " ".join(sorted(name))
    return " ".join(
        word if word in _DIRECTED else _stem(word) for word in words if word in _DIRECTED or _stem(word) in name
    )


def _initials(name: tuple[str, ...]) -> set[str]:
    """gcd, of greatest_common_divisor."""
    if len(name) > 2:
        return {f"initials {''.join(word[0] for word in name)}"}
    return {f"initials {name[0]}"} if len(name) == 1 and 3 <= len(name[0]) <= 5 else set()


@lru_cache(maxsize=1 << 16)
def _stem(word: str) -> str:
    return next(iter(_stems(word)), word)


def _stems(word: str) -> Iterator[str]:
    for ending, by in _ENDINGS.items():
        if word.endswith(ending) and len(word) - len(ending) >= _STEM:
            yield word.removesuffix(ending) + by


_PLAIN = frozenset(map(_stem, _GENERAL | _LINKS | _SMALL))
