"""The verifiers, the committee that they form, and the probers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from pipeline.config.cluster import PoolConfig
from pipeline.config.endpoints import EndpointUse
from pipeline.config.models import ModelConfig, SamplingConfig
from pipeline.config.section import Implemented, Registry, Section
from pipeline.config.types import Fraction, Majority, Positive, Seconds

PROMPTS = Path(__file__).parents[1] / "domains" / "text" / "prompts"
"""What the verifiers of free text tell their models, where the run's domain says nothing else."""


class VerifierConfig(Implemented):
    """A verifier is one file in `actors/verifiers/` and one entry in `VERIFIERS`."""

    language: ClassVar[str] = ""
    """The domain whose language it reads; "" for one that reads any text."""
    kind: str
    """Which verifier."""
    timeout_s: Seconds
    """For a vote, the wait for a free sandbox slot included, that for a turn at an endpoint not."""


class SymbolicVerifierConfig(VerifierConfig):
    """Solves the mini world's language by sympy."""

    implementation: ClassVar[str] = "actors.verifiers.mini.symbolic:SymbolicVerifier"
    language: ClassVar[str] = "mini"
    kind: Literal["symbolic"] = "symbolic"
    timeout_s: Seconds = 30
    """For a vote, the wait for a free sandbox slot included."""


class ExecutingVerifierConfig(VerifierConfig):
    """Compiles the mini world's language to a program, and runs it."""

    implementation: ClassVar[str] = "actors.verifiers.mini.executing:ExecutingVerifier"
    language: ClassVar[str] = "mini"
    kind: Literal["executing"] = "executing"
    timeout_s: Seconds = 30
    """For a vote, the wait for a free sandbox slot included."""


class AskingVerifierConfig(VerifierConfig, EndpointUse):
    """A verifier that asks a model."""

    base_url: str | None
    """An OpenAI-compatible endpoint, up to and with /v1."""
    model: str | None = Field(default=None, validate_default=True)
    """The model's name at that endpoint."""
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key."""
    samples: Positive = 3
    """Answers by majority of n."""
    majority: Majority = 0.6
    """Share of the samples that must agree, else the verifier abstains."""
    temperature: float = Field(default=0.7, ge=0)
    """At which answers are sampled."""
    max_tokens: Positive
    """Of a reply."""

    @field_validator("model")
    @classmethod
    def _named(cls, model: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("base_url") is not None and not (model or "").strip():
            raise PydanticCustomError("missing", "an endpoint without a model")
        return model


class ModelVerifierConfig(AskingVerifierConfig):
    """A model solves the problem; behind an endpoint it also reviews it."""

    implementation: ClassVar[str] = "actors.verifiers.text.model:ModelVerifier"
    kind: Literal["model"] = "model"
    base_url: str | None = None
    """An OpenAI-compatible endpoint, up to and with /v1; None asks `committee.judge`."""
    max_tokens: Positive = 8192
    """Of an answer."""
    timeout_s: Seconds = 300
    """For a vote, the wait for a free sandbox slot included."""
    trace: bool = True
    """Show an endpoint the agent's work beside the statement, as the paper does, once it has solved the problem."""
    structured: bool = False
    """Ask the endpoint for a review as JSON of a schema, whose first field is the reasoning. Off, a review is text with
    JSON at its end, which every endpoint can write."""


class ProgramVerifierConfig(AskingVerifierConfig):
    """For problems in free text: a model writes programs for the statement, the sandbox runs them."""

    implementation: ClassVar[str] = "actors.verifiers.text.program:ProgramVerifier"
    kind: Literal["program"] = "program"
    style: Literal["python", "sympy"] = "python"
    """Plain Python, or sympy."""
    base_url: str
    """An OpenAI-compatible endpoint, up to and with /v1."""
    model: str
    """The model's name at that endpoint."""
    max_tokens: Positive = 4096
    """Of a program."""
    timeout_s: Seconds = 180
    """For a vote, the wait for a free sandbox slot included."""


class AuthorVerifierConfig(VerifierConfig):
    """Takes the writer's own answer for the truth, whatever the problem: no check at all, and a control for what the
    others are worth (`propose ablate --only rounds`)."""

    implementation: ClassVar[str] = "actors.verifiers.author:AuthorVerifier"
    kind: Literal["author"] = "author"
    timeout_s: Seconds = 30
    """For a vote, which takes no time."""


VERIFIERS: Registry[VerifierConfig] = Registry(
    "kind",
    [SymbolicVerifierConfig, ExecutingVerifierConfig, ModelVerifierConfig, ProgramVerifierConfig, AuthorVerifierConfig],
)

Flag = Literal["ambiguous", "underspecified", "unsolvable", "trivial", "vacuous", "leaks_answer", "off_task"]


class CommitteeConfig(Section):
    verifiers: tuple[Annotated[VerifierConfig, VERIFIERS], ...]
    """Who judges; three in the paper. Free text: `program` and `model`, each with an endpoint."""
    quorum: Positive = 2
    """Votes (abstentions do not count) below which a problem is rejected, or stays undecided where infrastructure that
    failed kept back as many as are missing."""
    required: Positive = 2
    """Valid votes an accepted problem needs."""
    disqualifying: tuple[Flag, ...] = (
        "ambiguous",
        "underspecified",
        "unsolvable",
        "trivial",
        "vacuous",
        "leaks_answer",
        "off_task",
    )
    """What a vote may flag, and a problem is rejected for, whatever the answers say."""
    audit: bool = True
    """Resolve differing answers by a second audit; off rejects them."""
    auditor: Annotated[VerifierConfig, VERIFIERS] | None = None
    """Who carries out the second audit: one more model. None asks those again who differ."""
    allow_same_model: bool = False
    """Let one model judge twice. Two judges of one model err alike, and then count for one."""
    spot_checks: int = Field(default=0, ge=0)
    """Accepted problems of each step of MGPO and of synthesis that are spoiled in a known way and judged again:
    what share is accepted is a live figure of the committee's quality. 0 where the domain knows no such ways."""
    canaries: int = Field(default=1, ge=0)
    """Accepted problems of each step of MGPO and of synthesis that are judged and probed again with a secret in
    place of their answer: how many secrets were about to be shown to a judge or a prober is a live figure."""
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

        yield from self._same()

    def _same(self) -> Iterator[str]:
        if self.allow_same_model:
            return
        seen: dict[str, str] = {}
        for where, model in ((w, _model_of(v, self.judge)) for w, v in self.judges().items()):
            if model is not None and (other := seen.setdefault(model, where)) != where:
                yield f"{where} and {other} are one model ({model}); expected different ones, or allow_same_model: true"

    def judges(self) -> dict[str, VerifierConfig]:
        """The verifiers and the auditor, by field."""
        found = {f"verifiers.{i}": verifier for i, verifier in enumerate(self.verifiers)}
        return found | ({"auditor": self.auditor} if self.auditor is not None else {})


def _model_of(verifier: VerifierConfig, judge: ModelConfig | None) -> str | None:
    """What tells its model from others, whoever serves it; None where it asks none."""
    if not isinstance(verifier, AskingVerifierConfig):
        return None
    if verifier.base_url is not None:
        name = verifier.model
    elif judge is not None:
        name = judge.endpoint.model if judge.endpoint is not None else judge.path
    else:
        name = "committee.judge"
    return (name or "").rstrip("/").rpartition("/")[2].lower()


class ProberConfig(Section):
    n: Positive = 32
    """Samples a problem."""
    k: Positive = 16
    """k of Pass@k (16 in the paper)."""
    first: Positive | None = None
    """Samples asked for at first, k if that is more; the rest only of a problem that these do not show to be easy.
    None: all n at once."""
    easy: Fraction = 0.6
    """A problem is easy where the 95 % interval of its rate, by the first samples, lies above this: 8 of 8 right are
    above 0.67, 16 of 16 above 0.80. Of an easy problem nothing more is asked: its bonus is small whatever comes."""
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
    """For the samples of one problem that are asked for at once; with `first` that may be twice."""
    pool: PoolConfig = PoolConfig(max_ongoing=128)
    """The replicas that ask the probers and judge their answers; each prober has a pool of its own in `ladder`."""

    @property
    def at_first(self) -> int:
        """Samples that a probe asks for before it can end."""
        return min(self.n, max(self.first or self.n, self.k))

    @property
    def longest_s(self) -> float:
        """For a whole probe, which asks once, or twice."""
        return self.timeout_s * (2 if self.at_first < self.n else 1)

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
