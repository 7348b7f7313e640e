"""The verifiers, the committee that they form, and the probers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pipeline.config.cluster import PoolConfig
from pipeline.config.models import ModelConfig, SamplingConfig
from pipeline.config.section import Implemented, Registry, Section
from pipeline.config.types import Fraction, Majority, Positive, Seconds


class VerifierConfig(Implemented):
    """A verifier is one file in `actors/verifiers/` and one entry in `VERIFIERS`."""

    kind: str
    """Which verifier."""
    timeout_s: Seconds
    """For a vote, the wait for a free sandbox slot included."""


class SymbolicVerifierConfig(VerifierConfig):
    """Solves the mini world's language by sympy."""

    implementation: ClassVar[str] = "actors.verifiers.mini.symbolic:SymbolicVerifier"
    kind: Literal["symbolic"] = "symbolic"
    timeout_s: Seconds = 30
    """For a vote, the wait for a free sandbox slot included."""


class ExecutingVerifierConfig(VerifierConfig):
    """Compiles the mini world's language to a program, and runs it."""

    implementation: ClassVar[str] = "actors.verifiers.mini.executing:ExecutingVerifier"
    kind: Literal["executing"] = "executing"
    timeout_s: Seconds = 30
    """For a vote, the wait for a free sandbox slot included."""


class ModelVerifierConfig(VerifierConfig):
    """A model solves the problem, and an endpoint also reviews it."""

    implementation: ClassVar[str] = "actors.verifiers.text.model:ModelVerifier"
    kind: Literal["model"] = "model"
    samples: Positive = 3
    """Answers by majority of n."""
    majority: Majority = 0.6
    """Share of the samples that must agree, else the verifier abstains."""
    temperature: float = Field(default=0.7, ge=0)
    """At which answers are sampled."""
    max_tokens: Positive = 8192
    """Of an answer."""
    timeout_s: Seconds = 300
    """For a vote, the wait for a free sandbox slot included."""
    trace: bool = True
    """Show an endpoint the agent's work beside the statement, as the paper does."""
    base_url: str | None = None
    """An OpenAI-compatible endpoint; None asks `committee.judge`."""
    model: str | None = None
    """The model's name at that endpoint."""
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key."""


class ProgramVerifierConfig(VerifierConfig):
    """For problems in free text: a model writes programs for the statement, the sandbox runs them."""

    implementation: ClassVar[str] = "actors.verifiers.text.program:ProgramVerifier"
    kind: Literal["program"] = "program"
    style: Literal["python", "sympy"] = "python"
    """Plain Python, or sympy."""
    base_url: str
    """An OpenAI-compatible endpoint."""
    model: str | None = None
    """The model's name at that endpoint."""
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key."""
    samples: Positive = 3
    """Programs that are written for a problem."""
    majority: Majority = 0.6
    """Share of the programs that must agree, else the verifier abstains."""
    temperature: float = Field(default=0.7, ge=0)
    """At which programs are sampled."""
    max_tokens: Positive = 4096
    """Of a program."""
    timeout_s: Seconds = 180
    """For a vote, the wait for a free sandbox slot included."""


VERIFIERS: Registry[VerifierConfig] = Registry(
    "kind", [SymbolicVerifierConfig, ExecutingVerifierConfig, ModelVerifierConfig, ProgramVerifierConfig]
)

Flag = Literal["ambiguous", "underspecified", "unsolvable", "trivial", "leaks_answer", "off_task"]


class CommitteeConfig(Section):
    verifiers: tuple[Annotated[VerifierConfig, VERIFIERS], ...]
    """Who judges; three in the paper. Free text: `program` and `model`, each with an endpoint."""
    quorum: Positive = 2
    """Votes (abstentions do not count) below which a problem stays undecided."""
    required: Positive = 2
    """Valid votes an accepted problem needs."""
    disqualifying: tuple[Flag, ...] = (
        "ambiguous",
        "underspecified",
        "unsolvable",
        "trivial",
        "leaks_answer",
        "off_task",
    )
    """What a vote may flag, and a problem is rejected for, whatever the answers say."""
    audit: bool = True
    """Resolve differing answers by a second audit; off rejects them."""
    spot_checks: int = Field(default=0, ge=0)
    """Accepted problems of each step of MGPO and wave of synthesis that are spoiled in a known way and judged again:
    what share is accepted is a live figure of the committee's quality. 0 where the domain knows no such ways."""
    judge: ModelConfig | None = None
    """The model that verifiers without an endpoint ask; None takes the strongest of `prober.ladder`."""
    timeout_s: Seconds = 900
    """For a verdict: twice a verifier's own, for the votes and for the second audit, and something to spare."""
    pool: PoolConfig = PoolConfig(max_ongoing=256)

    def contradictions(self) -> Iterator[str]:
        if self.pool.num_gpus:
            yield (
                f"pool.num_gpus ({self.pool.num_gpus:g}): these replicas run no model; the judge has a pool of its "
                "own, judge.pool.num_gpus"
            )
        for name, needed in (("required", self.required), ("quorum", self.quorum)):
            if needed > len(self.verifiers):
                yield f"{name} ({needed}) exceeds the number of verifiers ({len(self.verifiers)})"


class ProberConfig(Section):
    n: Positive = 32
    """Samples a problem."""
    k: Positive = 16
    """k of Pass@k (16 in the paper)."""
    sampling: SamplingConfig = SamplingConfig()
    """How probers answer."""
    ladder: Annotated[tuple[ModelConfig, ...], Field(min_length=1)]
    """Probers, weakest first; the next takes over when the current one's accuracy settles below `threshold`."""
    threshold: Fraction = 0.30
    """Accuracy below which the next prober takes over."""
    window: Positive = 500
    """Problems between updates of the accuracy average."""
    ema: Fraction = 0.3
    """Weight of a new window (open in the paper)."""
    settled: Fraction = 0.05
    """The average has settled when a window moves it by less (open in the paper)."""
    timeout_s: Seconds = 1800
    """For the samples of one problem."""
    pool: PoolConfig = PoolConfig(max_ongoing=128)
    """The replicas that ask the probers and judge their answers; each prober has a pool of its own in `ladder`."""

    def contradictions(self) -> Iterator[str]:
        if self.pool.num_gpus:
            yield (
                f"pool.num_gpus ({self.pool.num_gpus:g}): these replicas run no model; each prober has a pool of its "
                "own, ladder.N.pool.num_gpus"
            )
        if self.k >= self.n:
            yield (
                f"k ({self.k}) must be below n ({self.n}): of as many samples as it takes, the estimate of Pass@k is 0 "
                "or 1, and no problem is both solved and hard"
            )
        if len({model.path for model in self.ladder}) != len(self.ladder):
            yield "ladder must name each prober once"
