"""Terminal and process rewards (PAPER, stage 3)."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from pipeline.config.endpoints import EndpointUse
from pipeline.config.section import Section
from pipeline.config.types import Fraction, Positive, Seconds
from pipeline.records import Reading


class ReflectionJudgeConfig(EndpointUse):
    """A model behind an OpenAI-compatible endpoint that says which reflections are coherent."""

    base_url: str
    """Of the endpoint, up to and with /v1."""
    model: str
    """The model's name at that endpoint."""
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key."""
    weight: float = Field(default=0.2, ge=0)
    """Process reward of an episode whose reflections are all coherent, shared out among them."""
    max_tokens: Positive = 256
    """Of a reply."""
    timeout_s: Seconds = 60
    """For a try of a call, from when it is its turn."""


class RewardConfig(Section):
    base: float = 1.0
    """R_base (open in the paper)."""
    difficulty: float = Field(default=2.0, ge=0)
    """lambda, the weight of 1 - rho (open in the paper)."""
    rho: Reading = "rate"
    """rate: the share of right samples, which grades difficulty evenly · pass_at_k: the chance that one of prober.k is
    right, which pays next to nothing for what is solved one time in two. The paper's words allow both
    (deploy/REWARD.md)."""
    significance: float = Field(default=0.05, gt=0, le=1)
    """A problem is solved if guessing would be right so often with a smaller probability than this. 1 takes any right
    answer for a solution, as the paper does (1[rho > 0])."""
    unsolved: Fraction = 0.0
    """Share of `base` that a valid problem earns which no prober of the ladder solves. 1 in the paper: it does not tell
    what is hard from what cannot be read, computed or understood."""
    repeats: Positive = 8
    """Problems of one skeleton, recent ones, that are paid in full; of n of them each is paid repeats / n."""
    memory: Positive = 10
    """Steps after which a skeleton's count has faded to 1 / e."""
    exec_ok: float = Field(default=0.2, ge=0)
    """Process reward of the check that stands, once an episode (the paper leaves all process magnitudes open)."""
    exec_error: float = Field(default=-0.2, le=0)
    """A check that fails. With a repair it adds up to nothing, so that failing on purpose does not pay."""
    reflection: float = Field(default=0.2, ge=0)
    """The refine turn between a failed check and the next one, which passes."""
    useful_edit: float = Field(default=0.2, ge=0)
    """The edit between a failed check and the next one, which passes."""
    needless_edit: float = Field(default=-0.2, le=0)
    """An edit that was refused, that returns to skills held before, or after which a check that stood fails."""
    malformed: float = Field(default=-0.3, le=0)
    """A tool call that could not be read."""
    repeated: float = Field(default=-0.2, le=0)
    """The same call again."""
    judge: ReflectionJudgeConfig | None = None
    """Adds its credit to what the rules above give."""

    def contradictions(self) -> Iterator[str]:
        for repair in ("reflection", "useful_edit"):
            if getattr(self, repair) + self.exec_error > 0:
                yield (
                    f"{repair} ({getattr(self, repair)}) must not exceed what the failed check before it costs "
                    f"(exec_error {self.exec_error}), else failing on purpose pays"
                )
