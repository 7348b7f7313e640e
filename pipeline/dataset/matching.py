"""Which rows of a data set are those of another one, or earlier rows of the same.

    exact            the same words and numbers, whatever case, blanks, punctuation and LaTeX
    reordered        the same clauses in another order
    near             word triples that agree to `NEAR` (MinHash, then counted), with the same numbers
    changed numbers  the same or nearly the same words with other numbers: told apart, for such a row may be meant
    passage          of a benchmark's question, `COVERED` of its runs of 13 words stand in the row

Invariant: each row has at most one match, by the first of these that holds. Memory is about 700 bytes a row, and the
texts: sketches are arrays, and a candidate is only the first text in a bucket, so no bucket makes work by its square.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.dataset import texts

Kind = Literal["exact", "reordered", "near", "changed numbers", "passage"]
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


@dataclass(frozen=True)
class Sketches:
    texts: Sequence[str]
    plain: Array
    clauses: Array
    shape: Array
    minhash: Array
    """n x permutations, of the shape: which numbers a text has is compared after that."""

    def __len__(self) -> int:
        return len(self.texts)


def sketch(given: Sequence[str]) -> Sketches:
    from datasketch import MinHash

    plain: Array = np.empty(len(given), np.uint64)
    clauses: Array = np.empty(len(given), np.uint64)
    shape: Array = np.empty(len(given), np.uint64)
    minhash: Array = np.empty((len(given), _PERMUTATIONS), np.uint32)
    empty = MinHash(num_perm=_PERMUTATIONS, seed=1)
    for i, text in enumerate(given):
        words = texts.tokens(text)
        bare = texts.shape(words)
        plain[i], clauses[i], shape[i] = texts.digest(words), texts.digest(texts.clauses(text)), texts.digest(bare)
        one = empty.copy()
        one.update_batch([shingle.encode() for shingle in sorted(texts.shingles(bare, _SHINGLE))])
        minhash[i] = one.hashvalues
    return Sketches(given, plain, clauses, shape, minhash)


def duplicates(rows: Sketches) -> list[Match]:
    """Rows that are an earlier row again."""
    return _matches(rows, rows, itself=True)


def against(rows: Sketches, reference: Sketches, passages: bool = False) -> list[Match]:
    """Rows that are a text of a reference; with `passages` also those that hold a good part of one."""
    found = {match.row: match for match in _matches(rows, reference, itself=False)}
    if passages:
        for match in _passages(rows.texts, reference.texts):
            found.setdefault(match.row, match)
    return [found[row] for row in sorted(found)]


def _matches(rows: Sketches, reference: Sketches, itself: bool) -> list[Match]:
    found: dict[int, Match] = {}

    def first(keys: Array, of: Array) -> Iterator[tuple[int, int]]:
        """(row, the first text with its key), where that is another one."""
        values, where = np.unique(of, return_index=True)
        at = np.minimum(np.searchsorted(values, keys), len(values) - 1)
        hit = values[at] == keys
        if itself:
            hit &= where[at] < np.arange(len(keys))
        for row in np.flatnonzero(hit):
            yield int(row), int(where[at[row]])

    if not len(rows) or not len(reference):
        return []
    for kind, keys, of in (
        ("exact", rows.plain, reference.plain), ("reordered", rows.clauses, reference.clauses)
    ):  # fmt: skip
        for row, text in first(keys, of):
            found.setdefault(row, Match(row, text, kind))  # type: ignore[arg-type]
    changed = {row: Match(row, text, "changed numbers") for row, text in first(rows.shape, reference.shape)}
    for band in range(0, _PERMUTATIONS, _BAND):
        keys, of = (_band(s.minhash, band) for s in (rows, reference))
        for row, text in first(keys, of):
            if row in found or not _alike(rows, row, reference, text):
                continue
            match = _nearly(rows.texts[row], reference.texts[text], row, text)
            if match is not None and match.kind == "near":
                found[row] = match
            elif match is not None:
                changed.setdefault(row, match)
    return [match for _, match in sorted((changed | found).items())]


def _band(minhash: Array, start: int) -> Array:
    """A 64-bit key of some columns."""
    key: Array = np.zeros(len(minhash), np.uint64)
    for column in range(start, start + _BAND):
        key = (key ^ minhash[:, column].astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    return key


def _alike(rows: Sketches, row: int, reference: Sketches, text: int) -> bool:
    estimate = float((rows.minhash[row] == reference.minhash[text]).mean())
    return estimate >= NEAR - _SLACK


def _nearly(a: str, b: str, row: int, text: int) -> Match | None:
    one, other = texts.tokens(a), texts.tokens(b)
    x, y = (texts.shingles(texts.shape(words), _SHINGLE) for words in (one, other))
    if len(x & y) < NEAR * len(x | y):
        return None
    same = sorted(texts.numbers(one)) == sorted(texts.numbers(other))
    return Match(row, text, "near" if same else "changed numbers")


# ---------------------------------------------------------------- passages


def _passages(rows: Sequence[str], reference: Sequence[str]) -> Iterator[Match]:
    """Rows in which `COVERED` of the runs of a reference's text stand, numbers included."""
    where: dict[int, list[int]] = {}
    runs: list[int] = []
    for i, text in enumerate(reference):
        words = texts.tokens(text)
        own = {texts.digest(words[j : j + RUN]) for j in range(len(words) - RUN + 1)}
        runs.append(len(own))
        for run in own:
            where.setdefault(run, []).append(i)
    for row, text in enumerate(rows):
        words = texts.tokens(text)
        counts: dict[int, int] = {}
        for run in {texts.digest(words[j : j + RUN]) for j in range(len(words) - RUN + 1)}:
            for i in where.get(run, ()):
                counts[i] = counts.get(i, 0) + 1
        best = max(counts, key=lambda i: (counts[i] / runs[i], -i), default=None)
        if best is not None and counts[best] >= COVERED * runs[best]:
            yield Match(row, best, "passage")


# ---------------------------------------------------------------- what a data set must not repeat


class Foreign:
    """Questions that other data sets have, by the name of each."""

    def __init__(self, others: Mapping[str, Sequence[str]]):
        self._others = {name: sketch(questions) for name, questions in others.items()}

    def __call__(self, questions: Sequence[str]) -> dict[int, str]:
        """Place -> the first data set that has the question, and how. One with other numbers is another question."""
        if not self._others:
            return {}
        own, found = sketch(questions), dict[int, str]()
        for name, other in self._others.items():
            for match in against(own, other, passages=True):
                if match.kind != "changed numbers":
                    found.setdefault(match.row, f"in {name}: {match.kind}")
        return found
