"""What is wrong with a problem of the mini world, said by its rules themselves.

Invariant: nothing here is shared with the verifiers that are put to the test: the reader and the values are those of
the generator. A fault is one of `FAULTS`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from random import Random

from pipeline.domains.mini.combinations import largest_feasible
from pipeline.domains.mini.domain import BY_ID, NAMES, THINGS
from pipeline.domains.mini.generate import Sentence, Text, evaluate, read
from pipeline.domains.mini.meaning import shuffled
from pipeline.records import Problem

FAULTS = ("ill_posed", "wrong", "off_task", "vacuous")
LARGEST = 10**9
_NUMBER = re.compile(r"0|[1-9]\d{0,5}")
_AMBIGUOUS = re.compile(r"Repeat it \d+ times|grows \d+ times")
_SUBSTITUTIONS, _TRIES = 12, 150
_REACH = (0.95, 0.71, 0.59, 0.25, 0.15)
"""Share of problems with so many steps that a solver of the mini world's size gets right."""
_READABLE = 99_999


def faults(problem: Problem, category: str, offered: Collection[str]) -> frozenset[str]:
    """Of a problem that was written for this category and these skills."""
    text = read(problem.question)
    if text is None or not _well_posed(text, problem.question):
        return frozenset({"ill_posed"})
    found = set()
    if (problem.answer, problem.answer_kind) != (text.answer, text.answer_kind):
        found.add("wrong")
    known = frozenset(s for s in offered if s in BY_ID)
    if text.category != category or not any(part <= text.skills for part in largest_feasible(known) or [known]):
        found.add("off_task")
    if not text.steps or any(_deletable(text, i) for i in range(1, len(text.sentences) - 1)):
        found.add("vacuous")
    return frozenset(found)


def reach(question: str) -> float:
    """0 where a number on the way is beyond what is worked out step by step, or the text is none."""
    text = read(question)
    if text is None or text.fault:
        return 0.0
    largest = max(
        (n for v in text.values for n in ((v,) if isinstance(v, int) else v) if isinstance(n, int)), default=0
    )
    if largest > _READABLE or text.steps >= len(_REACH):
        return 0.0
    return _REACH[text.steps]


def _well_posed(text: Text, question: str) -> bool:
    closed = (not text.name or text.name in NAMES) and (not text.thing or text.thing in THINGS)
    numbers = all(_NUMBER.fullmatch(n) for n in re.findall(r"\d+", question))
    small = all(n <= LARGEST for v in text.values for n in ((v,) if isinstance(v, int) else v) if isinstance(n, int))
    whole = not text.fault and text.sentences[-1].rule.role == "question" and text.question == question
    return closed and numbers and small and whole and not _AMBIGUOUS.search(question)


def _deletable(text: Text, at: int) -> bool:
    """No other numbers make the answer depend on the sentence."""
    rng = Random(hashlib.sha256(f"{text.question} {at}".encode()).digest())
    seen = 0
    for i in range(_TRIES):
        sentences = [s if j == at or i == 0 else shuffled(s, rng) for j, s in enumerate(text.sentences)]
        whole, without = _values(text, sentences), _values(text, sentences[:at] + sentences[at + 1 :])
        if whole is None:
            continue
        if without != whole:
            return False
        seen += 1
        if seen == _SUBSTITUTIONS:
            break
    return seen > 0


def _values(text: Text, sentences: list[Sentence]) -> str | None:
    found = evaluate(text.name, text.thing, sentences)
    return None if found.fault else found.answer
