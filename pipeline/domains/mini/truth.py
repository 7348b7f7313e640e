"""What is wrong with a problem of the mini world, said by its rules themselves.

Invariant: nothing here is shared with the verifiers that are put to the test: the reader and the values are those of
the generator.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import replace
from random import Random

from pipeline.domains.mini.combinations import largest_feasible
from pipeline.domains.mini.domain import BY_ID, NAMES, THINGS
from pipeline.domains.mini.generate import LARGEST, STEPS, Sentence, Text, evaluate, read
from pipeline.domains.mini.meaning import shuffled
from pipeline.domains.mini.rules.base import CAP
from pipeline.records import Problem

_NUMBER = re.compile(rf"0|[1-9]\d{{0,{len(str(LARGEST)) - 1}}}")
_SUBSTITUTIONS, _TRIES = 80, 400
_FEWEST = 6
"""Other numbers at the start that must hold, for the answer to be called the same for all."""
_REACH = (0.95, 0.71, 0.59, 0.25, 0.15)
"""Share of problems with so many steps that a solver of the mini world's size gets right."""
_READABLE = 99_999
_OTHERS = 40


def faults(problem: Problem, category: str, offered: Collection[str]) -> frozenset[str]:
    """Of `ill_posed`, `wrong`, `off_task` and `vacuous`, what a problem is that was written for this category and these
    skills."""
    text = read(problem.question)
    if text is None or not _well_posed(text, problem.question):
        return frozenset({"ill_posed"})
    found = set()
    if (problem.answer, problem.answer_kind) != (text.answer, text.answer_kind):
        found.add("wrong")
    known = frozenset(s for s in offered if s in BY_ID)
    if text.category != category or not any(part <= text.skills for part in largest_feasible(known) or [known]):
        found.add("off_task")
    idle = (_deletable(text, i) for i in range(1, len(text.sentences) - 1))
    if not (text.steps or text.skills) or _constant(text) or any(idle):
        found.add("vacuous")
    return frozenset(found)


def reach(question: str) -> float:
    """0 where a number on the way is beyond what is worked out step by step, or the text is none."""
    text = read(question)
    if text is None or text.fault:
        return 0.0
    if _largest(text) > _READABLE or text.steps >= len(_REACH):
        return 0.0
    return _REACH[text.steps]


def asks(question: str) -> str:
    """The rules of a question with their numbers, in any order, and its answers, to it and with other numbers at the
    start: what copies have in common, found without the identity that the rewards go by."""
    text = read(question)
    if text is None or text.fault:
        return question
    opening, *rest = text.sentences
    rng = Random(opening.rule.id)  # the same others for all that may be copies
    others = [_values(text, [_opened(opening, rng), *rest]) for _ in range(_OTHERS)]
    return repr((sorted((s.rule.id, s.args) for s in text.sentences), text.answer, others))


def _largest(text: Text) -> int:
    """The largest number on the way."""
    values = (v if isinstance(v, tuple) else (v,) for v in text.values)
    return max((n for value in values for n in value if isinstance(n, int)), default=0)


def _well_posed(text: Text, question: str) -> bool:
    closed = (not text.name or text.name in NAMES) and (not text.thing or text.thing in THINGS)
    numbers = all(_NUMBER.fullmatch(n) for n in re.findall(r"\d+", question))
    small = _largest(text) <= CAP and text.steps <= STEPS
    whole = not text.fault and text.sentences[-1].rule.role == "question" and text.question == question
    return closed and numbers and small and whole


def _deletable(text: Text, at: int) -> bool:
    """No other numbers make the answer depend on the sentence."""
    rng = Random(hashlib.sha256(f"{text.question} {at}".encode()).digest())
    seen = 0
    for i in range(_TRIES):
        if i % 2:  # all numbers but its own
            sentences = [s if j == at else shuffled(s, rng) for j, s in enumerate(text.sentences)]
        else:  # those at the start alone, small and large
            opening = text.sentences[0]
            args = tuple(rng.randint(1, rng.choice((9, 60, 999))) for _ in opening.args)
            sentences = [Sentence(opening.rule, opening.wording, args), *text.sentences[1:]]
        whole, without = _values(text, sentences), _values(text, sentences[:at] + sentences[at + 1 :])
        if whole is None:
            continue
        if without != whole:
            return False
        seen += 1
        if seen == _SUBSTITUTIONS:
            break
    return seen > 0


def _constant(text: Text) -> bool:
    """No other numbers at the start give another answer."""
    opening, *rest = text.sentences
    rng = Random(hashlib.sha256(text.question.encode()).digest())
    others = (_values(text, [_opened(opening, rng), *rest]) for _ in range(_TRIES))
    answers = [answer for answer in others if answer is not None]
    return len(answers) >= _FEWEST and set(answers) == {text.answer}


def _opened(opening: Sentence, rng: Random) -> Sentence:
    """With other numbers, small and large; a list of another length."""
    like = shuffled(opening, rng)
    return replace(like, args=tuple(rng.randint(1, rng.choice((9, 60, 999))) for _ in like.args))


def _values(text: Text, sentences: list[Sentence]) -> str | None:
    found = evaluate(text.name, text.thing, sentences)
    return None if found.fault else found.answer
