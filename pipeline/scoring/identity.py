"""What makes two problems the same, and how varied a set of problems is.

Two questions with one *meaning* are copies: a domain with a language of its own says what a question means; of free
text it is the words without case, punctuation and proper names, and two texts whose word triples agree to `NEAR`
(MinHash, Jaccard) with the same numbers in the same order count as one. The *skeleton* is the meaning without its
numbers; in free text, texts that agree to `NEAR` share it.

Invariant: `Register` depends on the order of what it is given alone, and holds for all stages of a run.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from pipeline.domains.base import Identity
from pipeline.skills.scripts import UNSPACED

if TYPE_CHECKING:
    from datasketch import MinHash

NEAR = 0.8
"""Jaccard similarity from which on two texts have one skeleton."""
_PERMUTATIONS = 64
_SHINGLE = 3
ALERT_TOP_SHARE = 0.2
ALERT_ENTROPY = 0.5


_WORD = re.compile(rf"\d+(?:[.,]\d+)*|[{UNSPACED}]|[^\W\d_{UNSPACED}]+|[^\w\s.,;:!?'\"、。]")
"""A number, a sign of Chinese or Japanese, a word of any other script, or a mark that counts."""

Read = Callable[[str], Identity | None]
"""What a question means in a domain's own language; None of a text that is not of it."""


def words(question: str) -> list[str]:
    """The text as plain words and signs: one form of each character, no case, no punctuation, `N` for a name."""
    text = "".join(c for c in unicodedata.normalize("NFKC", question) if unicodedata.category(c) != "Cf")
    sentences = re.split(r"(?<=[.?!:])\s+", text.strip())
    found: list[str] = []
    names = {w for s in sentences for w in re.findall(r"[^\W\d_]+", s)[1:] if w[0].isupper() and w[1:].islower()}
    for word in _WORD.findall(text):
        found.append("N" if word in names else word.lower())
    return found


class Register:
    """The problems of a run so far, by meaning and by skeleton."""

    def __init__(self, read: Read):
        self._read = read
        self._meanings: set[str] = set()
        self._texts = _Texts()
        self.counts: dict[str, float] = {}
        """Skeleton -> how many there were lately: counts fade."""

    def identify(self, question: str) -> Identity:
        """Of a question in the domain's language what the domain says; of any other text what its words say."""
        return self._read(question) or self._texts.identity(question)

    def known(self, identity: Identity) -> bool:
        return identity.meaning in self._meanings

    def add(self, identity: Identity) -> None:
        self._meanings.add(identity.meaning)
        self.counts[identity.skeleton] = self.counts.get(identity.skeleton, 0.0) + 1

    def fade(self, memory: int) -> None:
        """One step has passed."""
        keep = math.exp(-1 / memory)
        self.counts = {skeleton: count * keep for skeleton, count in self.counts.items() if count * keep > 0.01}

    def share(self, skeleton: str, repeats: int) -> float:
        """Of its reward, what a problem with this skeleton is paid, itself being counted."""
        return min(1.0, repeats / max(self.counts.get(skeleton, 0.0), 1.0))


class _Texts:
    """Free texts, each under the first one that it nearly is."""

    def __init__(self) -> None:
        self._index: object | None = None
        self._known: dict[str, str] = {}

    def identity(self, question: str) -> Identity:
        plain = words(question)
        skeleton = self._representative(tuple("0" if w[0].isdigit() else w for w in plain))
        return Identity(f"{skeleton} {[w for w in plain if w[0].isdigit()]}", skeleton)

    def _representative(self, shape: Sequence[str]) -> str:
        from datasketch import MinHashLSH

        text = " ".join(shape)
        if text in self._known:
            return self._known[text]
        if self._index is None:
            self._index = MinHashLSH(threshold=NEAR, num_perm=_PERMUTATIONS)
        assert isinstance(self._index, MinHashLSH)
        sketch = _sketch(shape)
        near = sorted(self._index.query(sketch))
        self._known[text] = near[0] if near else text
        if not near:
            self._index.insert(text, sketch)
        return self._known[text]


def _sketch(shape: Sequence[str]) -> MinHash:
    from datasketch import MinHash

    sketch = MinHash(num_perm=_PERMUTATIONS, seed=1)
    for i in range(max(1, len(shape) - _SHINGLE + 1)):
        sketch.update(" ".join(shape[i : i + _SHINGLE]).encode())
    return sketch


# ---------------------------------------------------------------- how varied


def diversity(identities: Collection[Identity]) -> dict[str, float]:
    """skeletons: distinct ones · entropy: of them, as a share of what as many different ones would have · top_share: of
    the commonest skeleton · copies: share of problems whose meaning another one before has."""
    n = len(identities)
    counts = Counter(i.skeleton for i in identities)
    entropy = -sum(c / n * math.log(c / n) for c in counts.values())
    return {
        "skeletons": float(len(counts)),
        "skeleton_entropy": entropy / math.log(n) if n > 1 else 1.0,
        "skeleton_top_share": max(counts.values(), default=0) / max(n, 1),
        "near_duplicates": 1 - len({i.meaning for i in identities}) / n if n else 0.0,
    }


def alert(figures: dict[str, float], n: int, prompts: int | None = None) -> str:
    """One line where a set of n problems is mostly the same one; empty else. `prompts`: how many skill prompts they
    answer: those of one prompt have few skeletons by design, so the bounds are those of as many different problems, and
    what three prompts write is no alert."""
    if n < 20:
        return ""
    top, entropy = figures["skeleton_top_share"], figures["skeleton_entropy"]
    different = min(n, prompts or n)
    most, least = max(ALERT_TOP_SHARE, 3 / different), ALERT_ENTROPY * math.log(different) / math.log(n)
    if top <= most and entropy >= least:
        return ""
    return (
        f"{figures['skeletons']:.0f} skeletons in {n} problems, the commonest {100 * top:.0f} % of them "
        f"(alert above {100 * most:.0f} %), entropy {entropy:.2f} (alert below {least:.2f})"
    )
