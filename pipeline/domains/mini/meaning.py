"""What a question of the mini world means, its skeleton, and its twins with other numbers.

Invariant: wordings, names and things play no part, nor does an order that cannot change the value: of neighbours that
commute (`COMMUTE`), and of the values of a list that is only summed, counted or searched for its extremes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import groupby
from random import Random

from pipeline.domains.base import Identity
from pipeline.domains.mini.generate import Sentence, evaluate, read

COMMUTE = (
    {"add", "subtract"}, {"multiply"}, {"share"}, {"gcd"}, {"lcm"}, {"larger"}, {"keep_even", "keep_above"},
    {"add_each"}, {"travel_more"}, {"add_mass"}, {"part"}, {"repeat", "fuel", "km_to_m", "g_to_mg", "h_to_min"},
)  # fmt: skip
_TWINS, _TRIES = 32, 120


def identity(question: str) -> Identity | None:
    """None for a text that is not of the language."""
    text = read(question)
    if text is None:
        return None
    clauses = _ordered([_clause(s, text.sentences) for s in text.sentences])
    return Identity(str(clauses), " ".join(rule for rule, _ in clauses))


def _clause(s: Sentence, sentences: Sequence[Sentence]) -> tuple[str, tuple[int, ...]]:
    free = s.rule.id == "list" and not any(_keeps_order(other) for other in sentences)
    return s.rule.id, tuple(sorted(s.args)) if free else s.args


def _keeps_order(s: Sentence) -> bool:
    return s.rule.id == "position" or (s.rule.role == "question" and s.rule.takes == "L")


def _ordered(clauses: Sequence[tuple[str, tuple[int, ...]]]) -> list[tuple[str, tuple[int, ...]]]:
    """Neighbours that commute, sorted."""

    def kin(rule: str) -> int:
        return next((i for i, together in enumerate(COMMUTE) if rule in together), -1)

    found: list[tuple[str, tuple[int, ...]]] = []
    for kind, neighbours in groupby(clauses, key=lambda c: kin(c[0])):
        run = list(neighbours)
        found += run if kind < 0 else sorted(run)
    return found


def twins(question: str) -> list[tuple[str, str]]:
    """The question with other numbers, as long as its own (and lists of another length), each with its answer; those
    left out of which a condition fails. Empty for a text that is not of the language."""
    text = read(question)
    if text is None or text.fault:
        return []
    rng = Random(hashlib.sha256(question.encode()).digest())
    found: list[tuple[str, str]] = []
    for _ in range(_TRIES):
        twin = evaluate(text.name, text.thing, [shuffled(s, rng) for s in text.sentences])
        if not twin.fault:
            found.append((twin.question, twin.answer))
        if len(found) == _TWINS:
            break
    return found


def shuffled(s: Sentence, rng: Random) -> Sentence:
    """The sentence with other numbers, as long as its own; a list of another length."""
    args = rng.choices(s.args, k=rng.randint(2, 9)) if s.rule.id == "list" else s.args
    return Sentence(s.rule, s.wording, tuple(_like(n, rng) for n in args))


def _like(number: int, rng: Random) -> int:
    """Another number of as many digits."""
    digits = len(str(number))
    return rng.randint(10 ** (digits - 1) if digits > 1 else 1, 10**digits - 1)
