"""WizardMath (Luo et al. 2023, arXiv 2308.09583): Evol-Instruct (WizardLM, Xu et al. 2023, arXiv
2304.12244, section 3) for problems: upwards by the five evolutions in depth, sideways by the one in breadth, downwards
to an easier one.

Of WizardLM's elimination, what has not evolved at all is unusable here; what else is wrong with a problem the committee
says, where it is asked. Answers are those that the model gives with its problem. The reinforcement of WizardMath is
another subject: solvers are trained alike here, whatever wrote their data.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING

from actors.rewriting.base import KindOf, Rewriting, asked, written
from pipeline.config import WizardMathConfig
from pipeline.records import Problem

if TYPE_CHECKING:
    from actors.chat import Message

DEPTH: Mapping[str, str] = {
    "constrain": "Add one more condition or requirement, so that an answer has to respect it as well.",
    "deepen": "Ask for something that lies further: keep the situation, and raise depth or breadth of what is asked.",
    "concretize": "Put something specific in the place of something general: a certain object, method or case.",
    "reason": "Make it need one more step of reasoning, whose result the answer depends on.",
    "complicate": "Give richer data in the place of simple ones: several values, a list, a table, units to convert.",
}
"""What a model is told of each evolution in depth."""


class WizardMath(Rewriting):
    def __init__(self, settings: WizardMathConfig, prompts: Mapping[str, str]):
        super().__init__(settings, prompts)
        self._most = settings.rounds

    def rounds(self, rng: Random) -> int:
        return rng.randint(1, self._most)

    def ask(self, operation: str, problem: Problem) -> list[Message]:
        if operation in DEPTH:
            return asked(self.prompts["wizardmath_depth"], problem, method=DEPTH[operation])
        return asked(self.prompts[f"wizardmath_{operation}"], problem)

    def read(self, operation: str, reply: str, problem: Problem, kind_of: KindOf) -> Problem:
        return written(reply, problem, kind_of)
