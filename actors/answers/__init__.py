"""Are two answers the same? Three outcomes: equal, different, unknown. Unknown is never taken for right or wrong.

Invariant: nothing here evaluates text. `compare` reads choices, words and values; it is pure and cheap, and says
unknown for all else. `compare_many` sends the formulas that `compare` leaves open, whole or as members of a list, to
sympy and math-verify inside the sandbox, in two steps: each is parsed in a run of its own (parsing evaluates text, so
a hostile answer may claim anything about itself, but it never meets the other one), then a run that gets only the two
parsed trees, as data, decides. A run that fails, times out or is killed decides nothing: unknown.

The kind of an answer comes with it. What stands around the whole answer ($...$, \\boxed{...}) is no part of it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from actors.answers.notation import MATH_WORDS, prepared
from actors.answers.reading import formula, read_value
from actors.answers.values import Decide, Judgement, Number, Value, compare_values
from actors.answers.words import CHOICE_WORDS, choice, compare_choices, compare_text
from actors.answers.writing import WORDS_IN_MATHS, label, unwrap
from actors.execution import Executor
from pipeline.records import AnswerKind
from sandbox.api import Request

MAX_CHARS = 2_000
"""Longer answers are not read: unknown unless they are the same text."""

MAX_FORMULAS = 100
"""Pairs of formulas that two answers may need to have compared, as members of lists."""

_MAY_BE_NUMBERS = re.compile(
    r"\b(?:none|nothing|nil|half|third|quarter|dozen|hundred|thousand|[mb]illion|infini\w+|\w+(?:teen|ty)|"
    r"one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)\b",
    re.IGNORECASE,
)


def compare(kind: AnswerKind, expected: str, given: str) -> Judgement:
    """The outcome as far as it can be told without evaluating anything."""
    return _compare(kind, expected, given, lambda a, b: "unknown")


async def compare_many(pairs: Sequence[tuple[AnswerKind, str, str]], executor: Executor) -> list[Judgement]:
    """(kind, expected, given) -> outcome, in order; formulas are compared in the sandbox, each text parsed once."""
    asked: dict[tuple[str, str], None] = {}
    outcomes: list[Judgement] = []
    for pair in pairs:
        needed: dict[tuple[str, str], None] = {}
        outcomes.append(_compare(*pair, _noting(needed)))
        asked |= needed if outcomes[-1] == "unknown" and len(needed) <= MAX_FORMULAS else {}
    texts = sorted({text for pair in asked for text in pair})
    trees = dict(zip(texts, await asyncio.gather(*(_tree(text, executor) for text in texts)), strict=True))
    decided = await asyncio.gather(*(_decide(trees[a], trees[b], executor) for a, b in asked))
    known = dict(zip(asked, decided, strict=True))
    return [
        _compare(*pair, _knowing(known)) if outcome == "unknown" else outcome
        for pair, outcome in zip(pairs, outcomes, strict=True)
    ]


def _key(a: str, b: str) -> tuple[str, str]:
    """Two formulas in one order, so that the outcome does not depend on which was expected."""
    a, b = sorted((prepared(a), prepared(b)))
    return a, b


def _noting(asked: dict[tuple[str, str], None]) -> Decide:
    def decide(a: str, b: str) -> Judgement:
        key = _key(a, b)
        if key[0] == key[1]:
            return "equal"
        asked[key] = None
        return "unknown"

    return decide


def _knowing(known: Mapping[tuple[str, str], Judgement]) -> Decide:
    def decide(a: str, b: str) -> Judgement:
        key = _key(a, b)
        return "equal" if key[0] == key[1] else known.get(key, "unknown")

    return decide


_FORMULAS = (Path(__file__).parent / "formulas.py").read_text(encoding="utf-8")


async def _tree(text: str, executor: Executor) -> str | None:
    result = await executor.run(Request(_FORMULAS, entry="parse", args=(text,)))
    return json.dumps(result.value) if result.ok and isinstance(result.value, list) else None


async def _decide(a: str | None, b: str | None, executor: Executor) -> Judgement:
    if a is None or b is None:
        return "unknown"
    result = await executor.run(Request(_FORMULAS, entry="decide", args=(json.loads(a), json.loads(b))))
    return result.value if result.ok and result.value in ("equal", "different") else "unknown"


# ---------------------------------------------------------------- by kind


def _compare(kind: AnswerKind, expected: str, given: str, decide: Decide) -> Judgement:
    a, b = unwrap(expected), unwrap(given)
    if a == b:
        return "equal" if a else "unknown"
    if not a or not b or max(len(a), len(b)) > MAX_CHARS or kind == "code":
        return "unknown"  # programs are judged by their tests, see actors/answers/code.py
    if kind == "text":
        return compare_text(a, b)
    x, y = read_value(a), read_value(b)
    if kind == "choice":
        return compare_choices(a, b, number=x is not None or y is not None)
    (letter_a, a), (letter_b, b) = label(a), label(b)
    outcome = _compare_maths(a, b, x, y, decide)
    if letter_a and letter_b and letter_a != letter_b:
        return "unknown" if outcome == "equal" else outcome
    for said, other in ((letter_a, b), (letter_b, a)):
        if said and (alone := _letter(other)):  # "(D) 12" and "D"
            return "equal" if alone == said else "different"
    return outcome


def _compare_maths(a: str, b: str, x: Value | None, y: Value | None, decide: Decide) -> Judgement:
    if x is not None and y is not None:
        return compare_values(x, y, decide)
    if (one := _letter(a)) and (other := _letter(b)) and {one, other} != {"E"} and {one, other} != {"I"}:
        return "equal" if one == other else "different"  # choices, or symbols
    if {choice(a), choice(b)} <= CHOICE_WORDS:
        return compare_choices(a, b, number=False)
    words_a, words_b = _is_words(a), _is_words(b)
    if words_a and words_b and choice(a) == choice(b):
        return "equal"
    if (words_a and y is not None) or (words_b and x is not None):
        return "unknown" if _MAY_BE_NUMBERS.search(a if words_a else b) else "different"
    one_side, other_side = (
        v if isinstance(v, Number) and v.name is None else formula(text) for v, text in ((x, a), (y, b))
    )
    if one_side is None or other_side is None:
        return "unknown"
    return compare_values(one_side, other_side, decide)


def _letter(text: str) -> str | None:
    """A single letter, in brackets perhaps."""
    match = re.fullmatch(r"([A-Za-z])\.?|\(([A-Za-z])\)\.?", WORDS_IN_MATHS.sub(r"\1", text).strip())
    return (match[1] or match[2]).upper() if match else None


def _is_words(text: str) -> bool:
    """Prose rather than a formula: "even", "no solution"."""
    plain = WORDS_IN_MATHS.sub(r"\1", text).strip(" $.")
    if "\\" in plain or not re.fullmatch(r"[A-Za-z][A-Za-z' .-]*", plain):
        return False
    words = re.findall(r"[a-z]+", plain.lower())
    return len(words[0]) >= 2 and not set(words) & MATH_WORDS
