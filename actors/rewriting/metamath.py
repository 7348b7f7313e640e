"""MetaMath (Yu et al. 2023, arXiv 2309.12284, section 3): questions bootstrapped from others.

    rephrase            the same question in other words; its answer is the seed's
    self_verification   question and answer as a statement in which one number is unknown, which is asked for
                        (after Weng et al. 2022, arXiv 2212.09561)
    fobar               the question with one number unknown, its answer said after it, and that number asked for
                        (after Jiang et al. 2023, arXiv 2308.07758)

The paper's fourth kind, several answers to one question, makes no problem: GRPO samples answers itself. Where the paper
masks numbers by rule, a model does here, which can tell a quantity from the number of a page.

Invariant: no answer is worked out: that of a rephrased question is the seed's, and that of a backward question a number
of the seed. What a model says otherwise is unusable.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from actors.answers import compare
from actors.rewriting.base import KindOf, Rewriting, Unusable, asked, written
from pipeline.records import Problem

if TYPE_CHECKING:
    from actors.chat import Message

_NUMBER = re.compile(r"\d+(?:[.,/]\d+)*")


class MetaMath(Rewriting):
    def ask(self, operation: str, problem: Problem) -> list[Message]:
        return asked(self.prompts[f"metamath_{operation}"], problem)

    def read(self, operation: str, reply: str, problem: Problem, kind_of: KindOf) -> Problem:
        new = written(reply, problem, kind_of)
        if operation == "rephrase":
            return Problem.make(new.question, problem.answer, problem.answer_kind)
        numbers = _NUMBER.findall(problem.question)
        if not any(compare("math", number, new.answer) == "equal" for number in numbers):
            raise Unusable("a backward question whose answer is no number of the one that was given")
        return Problem.make(new.question, new.answer, "math")
