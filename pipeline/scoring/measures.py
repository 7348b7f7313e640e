"""What a model's samples on a benchmark are worth, and whether two models differ.

    mean@n   share of right samples        best@n   problems with a right sample
    pass@k   the unbiased estimate         maj@n    problems whose commonest answer is right (ties: their share)

Invariant: a figure is a mean over problems, its interval a bootstrap over problems, and both depend on what they are
given and the seed alone. Samples that nobody could judge are left out, and problems of which none could be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from actors.answers.values import Judgement
from actors.passk import pass_at_k

RESAMPLES = 2_000
_DRAWN = 1_000_000
"""Numbers drawn at once, which bounds the memory."""
FLIPS = 10_000
_EXACT = 14
"""Differences up to which all ways of flipping their signs are tried."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Item:
    """A problem and the samples that answered it."""

    id: str
    judged: Sequence[Judgement]
    given: Sequence[str | None]
    """The answer of each sample, in the form that tells equal ones; None: it gave none."""
    truncated: Sequence[bool | None] = ()
    """Whether each was cut off at the limit of tokens; empty or None: not known."""

    def ended(self) -> list[str | None]:
        """The answers of the samples that were not cut off."""
        return [g for i, g in enumerate(self.given) if not (self.truncated and self.truncated[i])]

    @property
    def known(self) -> list[bool]:
        return [o == "equal" for o in self.judged if o != "unknown"]

    @property
    def share(self) -> float:
        """Of its judged samples, those that are right."""
        return sum(self.known) / len(self.known)


def measures(items: Sequence[Item], seed: int) -> dict[str, Any]:
    """name -> {value, interval}, and counts of samples: cut off at the limit of tokens (null: not known), of the
    others those that gave no answer, and those that nobody could judge."""
    judged = [item for item in items if item.known]
    n = max((len(item.judged) for item in items), default=0)
    samples = sum(len(item.judged) for item in items)
    cuts = [cut for item in items for cut in item.truncated]
    columns: dict[str, list[float]] = {f"mean@{n}": [item.share for item in judged]}
    for k in (k for k in _doubles(n) if all(len(item.known) >= k for item in judged)):
        columns[f"pass@{k}"] = [pass_at_k(len(item.known), sum(item.known), k) for item in judged]
    columns[f"best@{n}"] = [float(any(item.known)) for item in judged]
    columns[f"maj@{n}"] = [_majority(item) for item in judged]
    table = np.array(list(columns.values()), float).reshape(len(columns), len(judged))
    intervals = bootstrap(table, seed)
    found: dict[str, Any] = {
        name: {"value": float(values.mean()) if len(values) else None, "interval": interval}
        for name, values, interval in zip(columns, table, intervals, strict=True)
    }
    return found | {
        "samples": samples,
        "truncated": sum(map(bool, cuts)) if len(cuts) == samples and None not in cuts else None,
        "no_answer": sum(given is None for item in items for given in item.ended()),
        "unknown": sum(o == "unknown" for item in items for o in item.judged),
        "problems_unknown": len(items) - len(judged),
    }


def _doubles(n: int) -> list[int]:
    return [1 << i for i in range(n.bit_length()) if 1 << i <= n]


def _majority(item: Item) -> float:
    """Whether the commonest answer is right; of several as common, the share that is. Samples without an answer have
    no vote. Equal answers are judged equal, whichever sample gave them."""
    votes = [
        (g, o == "equal") for g, o in zip(item.given, item.judged, strict=True) if g is not None and o != "unknown"
    ]
    if not votes:
        return 0.0
    counts = Counter(given for given, _ in votes)
    most = max(counts.values())
    right = dict(votes)
    top = [given for given, count in counts.items() if count == most]
    return sum(right[given] for given in top) / len(top)


def bootstrap(columns: Array, seed: int) -> list[list[float] | None]:
    """95 % intervals of the means of the rows of a table, resampling its columns (problems) together."""
    count, n = columns.shape
    if not n:
        return [None for _ in range(count)]
    rng = np.random.default_rng(seed)
    at_once = max(1, _DRAWN // n)
    parts = [min(at_once, RESAMPLES - start) for start in range(0, RESAMPLES, at_once)]
    means = np.concatenate([_means(columns, rng.integers(0, n, (part, n))) for part in parts])
    return [[float(low), float(high)] for low, high in np.percentile(means, [2.5, 97.5], axis=0).T]


def _means(columns: Array, drawn: Array) -> Array:
    """resamples x rows: the means of the rows over what each resample drew."""
    counts = np.zeros((len(drawn), columns.shape[1]), np.float64)
    np.add.at(counts, (np.arange(len(drawn))[:, None], drawn), 1.0)
    means: Array = counts @ columns.T / columns.shape[1]
    return means


# ---------------------------------------------------------------- two models


def compare(a: Mapping[str, Item], b: Mapping[str, Item], seed: int) -> dict[str, Any]:
    """b against a over the problems that both answered: the mean difference of the shares of right samples, its
    bootstrap interval, the chance of one as large if the two were alike (signs flipped at random), and what changed."""
    both = [id for id in a if id in b and a[id].known and b[id].known]
    shares = {id: (a[id].share, b[id].share) for id in both}
    changes = np.array([after - before for before, after in shares.values()], float)
    changed = sorted((id for id in both if shares[id][0] != shares[id][1]), key=lambda i: shares[i][1] - shares[i][0])
    (interval,) = bootstrap(changes.reshape(1, -1), seed)
    return {
        "problems": len(both),
        "only_a": len(a) - len(both),
        "only_b": len(b) - len(both),
        "a": float(np.mean([s[0] for s in shares.values()])) if both else None,
        "b": float(np.mean([s[1] for s in shares.values()])) if both else None,
        "difference": float(changes.mean()) if both else None,
        "interval": interval,
        "p": flipped(changes, seed) if both else None,
        "better": sum(after > before for before, after in shares.values()),
        "worse": sum(after < before for before, after in shares.values()),
        "changed": [{"id": id, "a": shares[id][0], "b": shares[id][1]} for id in changed],
    }


def flipped(changes: Array, seed: int) -> float:
    """The two-sided p of a mean difference: the share of ways to flip the signs that make it as large."""
    moved = changes[changes != 0]
    if not len(moved):
        return 1.0
    seen = abs(moved.sum()) - 1e-12
    if len(moved) <= _EXACT:
        signs = 1 - 2 * ((np.arange(1 << len(moved))[:, None] >> np.arange(len(moved))) & 1)
        return float((abs(signs @ moved) >= seen).mean())
    rng = np.random.default_rng(seed)
    hits = sum(int((abs(rng.choice((-1.0, 1.0), (FLIPS // 10, len(moved))) @ moved) >= seen).sum()) for _ in range(10))
    return (hits + 1) / (FLIPS + 1)


def verdict(found: Mapping[str, Any], of: str = "B") -> str:
    """A comparison in words; `of`: what b is called."""
    if not found["problems"]:
        return "nothing to compare: no problem was answered by both"
    low, high = found["interval"]
    points = f"{100 * found['difference']:+.1f} points (95 % {100 * low:+.1f} to {100 * high:+.1f}, p {found['p']:.3f})"
    if low <= 0 <= high:
        return f"no difference is shown: {of} is at {points} on {found['problems']} problems"
    return f"{of} is {'better' if low > 0 else 'worse'}: {points} on {found['problems']} problems"
