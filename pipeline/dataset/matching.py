"""Which rows of a data set are those of another one, or earlier rows of the same.

    exact            the same words and numbers, whatever case, blanks, punctuation and LaTeX
    reordered        the same clauses in another order
    near             word triples that agree to `NEAR` (MinHash, then counted), with the same numbers
    changed numbers  the same or nearly the same words with other numbers: told apart, for such a row may be meant
    passage          of a benchmark's question, `COVERED` of its runs of 13 words stand in the row
    semantic         other words that a model of embeddings finds to say the same (semantic.py)

Invariant: each row has at most one match, by the first of these that holds. Memory is about 700 bytes a row, and the
texts: sketches are arrays, and a candidate is only the first text in a bucket, so no bucket makes work by its square.
For `near` a bucket holds texts with the same numbers alone: of one template there may be thousands with others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np

from pipeline.dataset import texts

Kind = Literal["exact", "reordered", "near", "changed numbers", "passage", "semantic"]
NEAR = 0.6
COVERED = 0.5
RUN = 13
_SHINGLE = 3
_PERMUTATIONS = 128
_BAND = 4
_SLACK = 0.15
"""By how much an estimated similarity may be wrong before the true one is counted."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Match:
    row: int
    of: int
    """Which text of the reference, or which earlier row."""
    kind: Kind


Buckets = dict[str, tuple[Array, Array]]
"""Which keys -> the keys that texts of a reference have, in order, and the first text with each: 800 bytes a text in
all. Whoever asks for a few rows at a time keeps them, so that a row does not cost a look at the whole reference."""


@dataclass(frozen=True)
class Sketches:
    texts: Sequence[str]
    plain: Array
    clauses: Array
    shape: Array
    numbers: Array
    minhash: Array
    """n x permutations, of the shape: which numbers a text has is compared after that."""

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def passages(self) -> Passages:
        return Passages(self.texts)


def sketch(given: Sequence[str]) -> Sketches:
    from datasketch import MinHash

    plain: Array = np.empty(len(given), np.uint64)
    clauses: Array = np.empty(len(given), np.uint64)
    shape: Array = np.empty(len(given), np.uint64)
    numbers: Array = np.empty(len(given), np.uint64)
    minhash: Array = np.empty((len(given), _PERMUTATIONS), np.uint32)
    empty = MinHash(num_perm=_PERMUTATIONS, seed=1)
    for i, text in enumerate(given):
        words = texts.tokens(text)
        bare = texts.shape(words)
        plain[i], clauses[i], shape[i] = texts.digest(words), texts.digest(texts.clauses(text)), texts.digest(bare)
        numbers[i] = texts.digest(sorted(texts.numbers(words)))
        one = empty.copy()
        one.update_batch([shingle.encode() for shingle in sorted(texts.shingles(bare, _SHINGLE))])
        minhash[i] = one.hashvalues
    return Sketches(given, plain, clauses, shape, numbers, minhash)


def duplicates(rows: Sketches) -> list[Match]:
    """Rows that are an earlier row again."""
    return _matches(rows, rows, itself=True)


def against(rows: Sketches, reference: Sketches, passages: bool = False, buckets: Buckets | None = None) -> list[Match]:
    """Rows that are a text of a reference; with `passages` also those that hold a good part of one. `buckets` are those
    of the reference, kept from one call to the next."""
    found = {match.row: match for match in _matches(rows, reference, itself=False, buckets=buckets)}
    if passages:
        for match in reference.passages.within(rows.texts):
            found.setdefault(match.row, match)
    return [found[row] for row in sorted(found)]


def _matches(rows: Sketches, reference: Sketches, itself: bool, buckets: Buckets | None = None) -> list[Match]:
    if not len(rows) or not len(reference):
        return []
    found: dict[int, Match] = {}

    def first(keys: Callable[[Sketches], Array], name: str) -> Iterator[tuple[int, int]]:
        """(row, the first text with its key), where that is another one, of rows without a match."""
        values, where = (buckets or {}).get(name) or np.unique(keys(reference), return_index=True)
        if buckets is not None:
            buckets[name] = values, where.astype(np.int32)
        asked = keys(rows)
        at = np.minimum(np.searchsorted(values, asked), len(values) - 1)
        hit = values[at] == asked
        if itself:
            hit &= where[at] < np.arange(len(asked))
        for row in np.flatnonzero(hit):
            if int(row) not in found:
                yield int(row), int(where[at[row]])

    def alike(kind: Kind, same_numbers: bool) -> None:
        tried: dict[int, set[int]] = {}
        for band in range(0, _PERMUTATIONS, _BAND):
            keys = partial(_banded, start=band, same_numbers=same_numbers)
            for row, text in first(keys, f"{kind} {band}"):
                if text not in (before := tried.setdefault(row, set())):
                    before.add(text)
                    if _alike(rows, row, reference, text):
                        found[row] = Match(row, text, kind)

    for row, text in first(lambda s: s.plain, "plain"):
        found[row] = Match(row, text, "exact")
    for row, text in first(lambda s: s.clauses, "clauses"):
        found[row] = Match(row, text, "reordered")
    alike("near", same_numbers=True)
    for row, text in first(lambda s: s.shape, "shape"):
        found[row] = Match(row, text, "changed numbers")
    alike("changed numbers", same_numbers=False)
    return [found[row] for row in sorted(found)]


def _banded(of: Sketches, start: int, same_numbers: bool) -> Array:
    """A 64-bit key of some columns of the MinHash, and of the numbers."""
    key: Array = of.numbers.copy() if same_numbers else np.zeros(len(of), np.uint64)
    for column in range(start, start + _BAND):
        key = (key ^ of.minhash[:, column].astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    return key


def _alike(rows: Sketches, row: int, reference: Sketches, text: int) -> bool:
    """Whether the shapes of two texts agree to `NEAR`: estimated, and then counted."""
    if float((rows.minhash[row] == reference.minhash[text]).mean()) < NEAR - _SLACK:
        return False
    one, other = (
        texts.shingles(texts.shape(texts.tokens(given)), _SHINGLE) for given in (rows.texts[row], reference.texts[text])
    )
    return len(one & other) >= NEAR * len(one | other)


# ---------------------------------------------------------------- passages


class Passages:
    """The runs of `RUN` words, numbers included, that the texts of a reference are made of: 12 bytes a run."""

    def __init__(self, reference: Sequence[str]):
        runs = [_runs(text) for text in reference]
        self._sizes = [len(own) for own in runs]
        keys = np.concatenate([np.empty(0, np.uint64), *runs])
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order]
        self._of = np.repeat(np.arange(len(runs), dtype=np.int32), self._sizes)[order]

    def within(self, rows: Sequence[str]) -> Iterator[Match]:
        """Rows in which `COVERED` of the runs of one of the texts stand."""
        for row, text in enumerate(rows):
            own = _runs(text)
            low, high = (np.searchsorted(self._keys, own, side) for side in ("left", "right"))
            hits = Counter(int(i) for a, b in zip(low, high, strict=True) for i in self._of[a:b])
            best = max(hits, key=lambda i: (hits[i] / self._sizes[i], -i), default=None)
            if best is not None and hits[best] >= COVERED * self._sizes[best]:
                yield Match(row, best, "passage")


def _runs(text: str) -> Array:
    """A digest of each, once."""
    words = texts.tokens(text)
    return np.array(list({texts.digest(words[i : i + RUN]) for i in range(len(words) - RUN + 1)}), np.uint64)


# ---------------------------------------------------------------- what a data set must not repeat


class Foreign:
    """Questions that other data sets have, by the name of each. Asked for one question at a time or for many."""

    def __init__(self, others: Mapping[str, Sequence[str]]):
        self._others: dict[str, tuple[Sketches, Buckets]] = {
            name: (sketch(questions), {}) for name, questions in others.items()
        }

    def __call__(self, questions: Sequence[str]) -> dict[int, str]:
        """Place -> the first data set that has the question, and how. One with other numbers is another question."""
        if not self._others or not questions:
            return {}
        own, found = sketch(questions), dict[int, str]()
        for name, (other, buckets) in self._others.items():
            for match in against(own, other, passages=True, buckets=buckets):
                if match.kind != "changed numbers":
                    found.setdefault(match.row, f"in {name}: {match.kind}")
        return found
