"""What a way to rewrite problems says. One module an algorithm; its settings name it (`pipeline.config.rewriting`).

Invariant: which operations a task gets follows from its seed alone, so anybody can tell them afterwards; an algorithm
asks nobody and remembers nothing.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from random import Random
from typing import TYPE_CHECKING

from actors import loose_json
from actors.answers.replies import visible
from actors.prompts import fill
from pipeline.config import RewritingConfig
from pipeline.records import ANSWER_KINDS, AnswerKind, Problem

if TYPE_CHECKING:
    from actors.chat import Message  # brings tokenizers, which looking at a domain does not need

KindOf = Callable[[str], AnswerKind]
_OBJECT = re.compile(r'\{\s*"question"')


class Unusable(Exception):
    """A reply that holds no problem; its message says why."""


class Rewriting(ABC):
    """A way to write a problem from another one. `prompts`: by role, the domain's."""

    def __init__(self, settings: RewritingConfig, prompts: Mapping[str, str]):
        self.prompts = prompts
        self._names, self._shares = list(settings.shares), list(settings.shares.values())

    def plan(self, seed: int) -> tuple[str, ...]:
        """The operations that the task with this seed gets, in order."""
        rng = Random(f"rewriting {seed}")
        return tuple(rng.choices(self._names, self._shares, k=self.rounds(rng)))

    def rounds(self, rng: Random) -> int:
        return 1

    @abstractmethod
    def ask(self, operation: str, problem: Problem) -> list[Message]:
        """What a model is asked, to apply the operation to the problem."""

    @abstractmethod
    def read(self, operation: str, reply: str, problem: Problem, kind_of: KindOf) -> Problem:
        """The problem that the reply makes of another one. Raises Unusable."""


def asked(prompt: str, problem: Problem, **places: str) -> list[Message]:
    shown = json.dumps({"question": problem.question, "answer": problem.answer}, ensure_ascii=False)
    return [{"role": "user", "content": fill(prompt, problem=shown, **places)}]


def question_and_answer(reply: str) -> dict[str, str] | None:
    """The JSON object at the end of a reply, if it has a question and an answer that are not empty."""
    text = visible(reply)
    begins = [match.start() for match in _OBJECT.finditer(text)]
    start, end = begins[-1] if begins else text.find("{"), text.rfind("}") + 1
    try:
        found = loose_json.loads(text[start:end] if start >= 0 else "", set())
        fields = {str(k): loose_json.prose(v, set()) if isinstance(v, str) else str(v) for k, v in found.items()}
    except (ValueError, RecursionError, AttributeError):
        return None
    fields = {name: value.strip() for name, value in fields.items()}
    return fields if fields.get("question") and fields.get("answer") else None


def written(reply: str, problem: Problem, kind_of: KindOf) -> Problem:
    """The problem of a reply, of the kind that it names, else of the one that its question asks for. Raises
    Unusable."""
    found = question_and_answer(reply)
    if found is None:
        raise Unusable("the reply holds no problem with question and answer")
    if " ".join(found["question"].split()) == " ".join(problem.question.split()):
        raise Unusable("the question is the one that was given")
    named = next((kind for kind in ANSWER_KINDS if kind == found.get("answer_kind")), None)
    kind = named or kind_of(found["question"])
    if kind == "code":
        raise Unusable("the answer is a program, and nobody wrote its tests")
    return Problem.make(found["question"], found["answer"], kind)
