"""Ways to write problems from seed problems, which stand beside the agent as baselines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from pipeline.config.section import Implemented, Registry
from pipeline.config.types import Positive

Share = Annotated[float, Field(ge=0)]
Bootstrap = Literal["rephrase", "self_verification", "fobar"]
Evolution = Literal["constrain", "deepen", "concretize", "reason", "complicate", "breadth", "downward"]


class RewritingConfig(Implemented):
    """A way to rewrite is one module in `actors/rewriting/` and one entry in `REWRITINGS`. The teacher is asked."""

    kind: str
    """Which way."""
    seeds: str
    """Problems to start from: a .jsonl of question and answer (and category), or a name that the domain bundles (mini:
    `mini:seeds`). Those whose answer is a program are left out."""

    @property
    def shares(self) -> Mapping[str, float]:
        """Operation -> its share."""
        return {}

    def contradictions(self) -> Iterator[str]:
        if not any(self.shares.values()):
            yield "operations: every share is 0; expected one above"


class MetaMathConfig(RewritingConfig):
    """Rewriting as MetaMath bootstraps questions (arXiv 2309.12284, section 3): a question in other words, and backward
    questions, which state the answer and ask for a number of the question."""

    implementation: ClassVar[str] = "actors.rewriting.metamath:MetaMath"
    kind: Literal["metamath"] = "metamath"
    operations: dict[Bootstrap, Share] = Field(default=dict.fromkeys(get_args(Bootstrap), 1.0))
    """Operation -> its share of the problems: other words · the question as a statement with its answer in it, one
    number unknown · the question as it is with one number unknown, its answer said after it."""

    @property
    def shares(self) -> Mapping[str, float]:
        return {str(name): share for name, share in self.operations.items()}


class WizardMathConfig(RewritingConfig):
    """Evolving as WizardMath does (Evol-Instruct: arXiv 2304.12244; for mathematics 2308.09583): a problem made harder
    in depth, another one beside it in breadth, or an easier one."""

    implementation: ClassVar[str] = "actors.rewriting.wizardmath:WizardMath"
    kind: Literal["wizardmath"] = "wizardmath"
    operations: dict[Evolution, Share] = Field(default=dict.fromkeys(get_args(Evolution), 1.0))
    """Operation -> its share of the steps: one more condition · a deeper question · something general made special ·
    one more step of reasoning · richer data · a new problem of the same field · an easier problem."""
    rounds: Positive = 1
    """Operations one after the other that a problem is made by, at most: each gets 1 to so many, evenly. Every round is
    a call."""

    @property
    def shares(self) -> Mapping[str, float]:
        return {str(name): share for name, share in self.operations.items()}


REWRITINGS: Registry[RewritingConfig] = Registry("kind", [MetaMathConfig, WizardMathConfig])
