"""How an OpenAI-compatible endpoint may be used: by whoever asks one, with the same fields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from pipeline.config.section import Section
from pipeline.config.types import Positive, Seconds


def asks_endpoint(section: Any) -> bool:
    """Whether these settings, of whatever kind, name an endpoint."""
    return getattr(section, "base_url", None) is not None


class EndpointUse(Section):
    """Limits, prices and request fields of an endpoint. Those who name the same base URL and key share its limits: in
    one process the concurrency and the rates, in a run the budgets."""

    concurrency: Positive = 16
    """Calls under way at once, of each process that asks; the others wait, and no deadline of theirs runs."""
    requests_per_minute: Positive | None = None
    """Of each process that asks; None: as many as come."""
    tokens_per_minute: Positive | None = None
    """The same of tokens, of prompts and replies together."""
    max_wait_s: Seconds = 600
    """How long the endpoint may put one call off (429 or 503 with Retry-After) before the call counts as failed."""
    usd_per_million_in: float = Field(default=0, ge=0)
    """Price of a million prompt tokens."""
    usd_per_million_out: float = Field(default=0, ge=0)
    """Price of a million tokens of replies."""
    budget_usd: float | None = Field(default=None, gt=0)
    """What a run may spend at this base URL, its resumptions included, before a call of this section is refused: the
    one that could exceed it ends the run, and is not sent."""
    budget_tokens: Positive | None = None
    """The same in tokens, of prompts and replies together."""
    top_k: Positive | None = None
    """Sample from so many of the likeliest tokens only (vLLM, SGLang); None sends nothing."""
    thinking: bool | None = None
    """Sent as `chat_template_kwargs.enable_thinking` (vLLM, SGLang); None sends nothing."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the endpoint calls the limit of a reply."""
    extra_body: dict[str, Any] = Field(default={})
    """Fields laid over every request. A null takes a field out (`{temperature: null}`)."""

    def contradictions(self) -> Iterator[str]:
        if self.budget_usd is not None and not (self.usd_per_million_in or self.usd_per_million_out):
            yield f"budget_usd ({self.budget_usd:g}) needs prices: expected usd_per_million_in or usd_per_million_out"


class EndpointConfig(EndpointUse):
    """A model behind an OpenAI-compatible endpoint, where a model is asked for."""

    base_url: str
    """Of the endpoint, up to and with /v1."""
    model: str
    """The model's name at that endpoint."""
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key."""
    timeout_s: Seconds = 300
    """For a try of a call, from when it is its turn."""
    retries: int = Field(default=4, ge=0)
    """Further tries where the endpoint does not answer."""
