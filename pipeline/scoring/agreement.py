"""Do judges agree beyond chance? Cohen's kappa of pairs of them.

Judges who err alike are worth less than they count: two that always say the same are one. High agreement alone is no
sign of that, as sound problems are easy to agree on; where the truth is known, the kappa of their errors is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from pipeline.records import Verdict
from pipeline.scoring.statistics import mean


def kappa(pairs: Sequence[tuple[bool, bool]]) -> float | None:
    """1: they always agree · 0: as often as chance would have it · below 0: less. None where one of them always says
    the same, which leaves nothing to agree on."""
    n = len(pairs)
    if not n:
        return None
    agreed = sum(a == b for a, b in pairs) / n
    one, other = (sum(said[i] for said in pairs) / n for i in (0, 1))
    chance = one * other + (1 - one) * (1 - other)
    return (agreed - chance) / (1 - chance) if chance < 1 and 0 < one < 1 and 0 < other < 1 else None


def pairwise(verdicts: Iterable[Verdict], truths: Iterable[bool] | None = None) -> dict[str, float]:
    """Kappa of each pair of verifiers, "a~b", over the problems on which both voted: of their votes, or, given which of
    the problems are sound, of their errors. Pairs without a kappa are left out."""
    said: dict[str, list[tuple[bool, bool]]] = {}
    known = list(truths) if truths is not None else None
    for i, verdict in enumerate(verdicts):
        votes = {v.verifier: v.valid for v in verdict.votes if v.valid is not None and not v.second}
        for a, b in combinations(sorted(votes), 2):
            right = True if known is None else known[i]
            said.setdefault(f"{a}~{b}", []).append((votes[a] == right, votes[b] == right))
    found = {pair: kappa(both) for pair, both in sorted(said.items())}
    return {pair: value for pair, value in found.items() if value is not None}


def judges_kappa(verdicts: Iterable[Verdict]) -> dict[str, float]:
    """The mean of all pairs, as a metric; {} where no pair has one."""
    found = pairwise(verdicts)
    return {"judges_kappa": mean(list(found.values()))} if found else {}
