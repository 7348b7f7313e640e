"""Which skills go together, and which combinations only the benchmark may use.

Invariant: what fits together is never listed; it is derived from the rules by searching all orderings of types. The one
pair that fits and still makes no problem is `NEVER_BOTH`.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable
from functools import cache

from pipeline.domains.mini.domain import BY_ID, RULES, SKILL_IDS

# ---------------------------------------------------------------- which skills go together

NEVER_BOTH = frozenset(("keep_above", "list_max"))
"""What the filter drops is never the largest value: one of the two would not matter to the answer."""


@cache
def feasible(skills: frozenset[str]) -> bool:
    """Whether some problem uses every one of `skills` (further steps allowed), and each of them matters."""
    categories = {BY_ID[s].category for s in skills}
    if len(categories) > 1 or skills >= NEVER_BOTH:
        return False
    rules = [r for r in RULES if not categories or r.category in categories]
    frontier = deque((r.gives, skills - {r.id}) for r in rules if r.role == "opening")
    seen = set(frontier)
    while frontier:
        kind, missing = frontier.popleft()
        for rule in rules:
            if rule.role == "opening" or not rule.fits(kind):
                continue
            if rule.role == "question":
                if missing <= {rule.id}:
                    return True
                continue
            state = (rule.after(kind), missing - {rule.id})
            if state not in seen:
                seen.add(state)
                frontier.append(state)
    return False


def largest_feasible(skills: Iterable[str]) -> list[frozenset[str]]:
    """All largest subsets of `skills` that some problem can use, in a fixed order."""
    wanted = sorted(set(skills))
    layer = [frozenset(wanted)]
    while layer:
        good = [s for s in layer if feasible(s)]
        if good:
            return good
        smaller = {s - {x} for s in layer for x in s}
        layer = sorted(smaller, key=lambda s: sorted(s))
    return []


# ---------------------------------------------------------------- the held-out split

HELDOUT_PERCENT = 11


def _pairs() -> list[tuple[str, str]]:
    ids = sorted(SKILL_IDS)
    return [(a, b) for i, a in enumerate(ids) for b in ids[i + 1 :] if BY_ID[a].category == BY_ID[b].category]


@cache
def needs(skill: str) -> frozenset[str]:
    """Skills that every problem with `skill` uses too (fuel needs distance), found by leaving each other one out."""
    rules = [r for r in RULES if r.category == BY_ID[skill].category]

    def reachable(without: str) -> bool:
        kinds = {r.gives for r in rules if r.role == "opening" and r.id != without}
        while True:
            usable = [r for r in rules if r.id != without and r.role != "opening" and any(r.fits(k) for k in kinds)]
            new = kinds | {r.after(k) for r in usable if r.role == "step" for k in kinds if r.fits(k)}
            if new == kinds:
                return skill in {r.id for r in usable} or (BY_ID[skill].role == "opening" and without != skill)
            kinds = new

    return frozenset(r.id for r in rules if r.skill and r.id != skill and not reachable(r.id))


@cache
def heldout_pairs() -> frozenset[frozenset[str]]:
    """Pairs of skills that only the benchmark may combine: chosen by hash among pairs where neither needs the other."""
    pairs = (p for p in _pairs() if feasible(frozenset(p)) and p[0] not in needs(p[1]) and p[1] not in needs(p[0]))
    return frozenset(frozenset(p) for p in pairs if _percent("|".join(p)) < HELDOUT_PERCENT)


def is_heldout(skills: Iterable[str]) -> bool:
    """Whether a combination is reserved for the benchmark: it holds a held-out pair, needed skills counted in.

    Monotone: what is pruned from a combination that is not held out is not held out either.
    """
    every = {s for skill in skills for s in (skill, *(needs(skill) if skill in BY_ID else ()))}
    return any(pair <= every for pair in heldout_pairs())


def _percent(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) % 100
