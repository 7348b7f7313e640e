"""The endpoints that a config names: which stage asks them, whether they answer, and what a run has spent there.

Invariant: each endpoint is asked one question of a few tokens, as the stages will ask it (model, key, fields, form of
the reply), once for each kind of request, however many fields name it. A wrong key, a wrong model name, a dead endpoint
or a refused field is a Failure within `_ANSWER_S`; an endpoint that is merely slow or busy is told apart from those.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.openai_client import ChatClient
from actors.reply_store import KEPT_IN, kept_in, store
from pipeline.config import Config, ModelConfig, asks_endpoint
from pipeline.records import Failure, Halt

_ANSWER_S = 8.0
_QUESTION = [{"role": "user", "content": 'Answer with this JSON object: {"answer": "yes"}'}]
_SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
_REGEX = r"\{.*\}"
_TOKENS = 16
"""Of the reply; some endpoints refuse to write fewer."""


@dataclass
class Endpoint:
    """An endpoint, a model, a key and a kind of request, and the fields of the config that name them."""

    section: Any
    fields: list[str] = field(default_factory=list)
    stages: set[str] = field(default_factory=set)

    @property
    def key(self) -> str:
        name = self.section.api_key_env
        return f"${name} is {'set' if os.environ.get(name) else 'not set'}"

    @property
    def form(self) -> dict[str, Any]:
        """What is asked of a reply beside its words."""
        if getattr(self.section, "structured", False):
            return {"schema": _SCHEMA}
        return {"regex": _REGEX} if getattr(self.section, "guided", False) else {}

    @property
    def asked(self) -> str:
        """What tells this question from others."""
        s = self.section
        fields = [s.base_url, s.model, s.api_key_env, s.top_k, s.thinking, s.max_tokens_field, s.extra_body, self.form]
        return json.dumps(fields)


def endpoints_of(config: Config) -> list[Endpoint]:
    """Each endpoint that the config names, and each kind of request there, once."""
    taught = () if config.sft.data is not None else ("sft",)
    judging, probing = (*taught, "mgpo", "synthesize"), ("mgpo", "synthesize")
    rewrites = config.synthesize.rewrite is not None
    teaching, writing = (
        ("acquire", *taught, *(("synthesize",) if rewrites else ())),
        () if rewrites else ("synthesize",),
    )
    asks: list[tuple[str, Any, tuple[str, ...]]] = [
        (field, teacher, teaching) for field, (_, teacher) in config.teacher.each().items()
    ]
    asks += [(f"committee.{name}", verifier, judging) for name, verifier in config.committee.judges().items()]
    asks += [("reward.judge", config.reward.judge, ("mgpo",))]
    models: list[tuple[str, ModelConfig | None, tuple[str, ...]]] = [
        ("acquire.proposer", config.acquire.proposer, ("acquire",)),
        ("proposer", config.proposer, writing),
        ("synthesize.proposer", config.synthesize.proposer, writing),
        ("committee.judge", config.committee.judge, judging),
        *((field, model, ("evaluate",)) for field, model in config.evaluate.alone().items()),
    ]
    for i, model in enumerate(config.prober.ladder):
        models.append((f"prober.ladder.{i}", model, judging if model is config.judge else probing))
    asks += [(f"{name}.endpoint", model.endpoint, stages) for name, model, stages in models if model]
    found: dict[str, Endpoint] = {}
    for name, section, stages in asks:
        if asks_endpoint(section):
            new = Endpoint(section)
            endpoint = found.setdefault(new.asked, new)
            endpoint.fields.append(name)
            endpoint.stages.update(stages)
    return list(found.values())


def keys(config: Config) -> set[str]:
    """The variables that hold the keys of its endpoints."""
    return {endpoint.section.api_key_env for endpoint in endpoints_of(config)}


async def ask(endpoint: Endpoint) -> str:
    """One question; says what the endpoint does not take, "" if nothing. Raises Later where it is slow or busy, Failure
    where no call can succeed."""
    client = ChatClient.of(endpoint.section, timeout_s=_ANSWER_S, retries=0)
    try:
        temperature = getattr(endpoint.section, "temperature", 0.0)
        await client.complete(_QUESTION, temperature=temperature, max_tokens=_TOKENS, seed=0, **endpoint.form)
    except Halt as e:
        raise Failure(str(e)) from None
    except Failure as e:
        if e.kind != "model_error":  # a reply that was cut off, or without text, is one
            raise
    finally:
        await client.close()
    if "schema" in endpoint.form and not client.takes_schemas:
        return f"{endpoint.section.base_url}: takes no schema for its replies; it is asked in words alone"
    return ""


# ---------------------------------------------------------------- what is kept, and spent


@contextmanager
def keeping(config: Config, root: Path) -> Iterator[None]:
    """In this block replies are kept, and spending is that of the run in `root`, none of whose calls is under way."""
    file = Path(config.replies) if config.replies is not None else root.absolute().parent / "replies.sqlite"
    before = os.environ.get(KEPT_IN)
    os.environ[KEPT_IN] = kept_in(file.absolute(), str(root.absolute()))
    try:
        if file.exists():
            store().forget_open()
        yield
    finally:
        if before is None:
            del os.environ[KEPT_IN]
        else:
            os.environ[KEPT_IN] = before


def environment() -> dict[str, str]:
    """Of a process that asks endpoints for this run."""
    return {KEPT_IN: os.environ[KEPT_IN]} if KEPT_IN in os.environ else {}


def now(config: Config) -> dict[str, float]:
    """Figures of the moment: what has been spent at each endpoint, and what may be."""
    found = {f"{name}/{url}": s[name] for url, s in spent().items() for name in ("usd", "tokens")}
    for section in (endpoint.section for endpoint in endpoints_of(config)):
        for name in ("budget_usd", "budget_tokens"):
            if (most := getattr(section, name)) is not None:
                figure = f"{name}/{section.base_url.rstrip('/')}"
                found[figure] = min(most, found.get(figure, most))  # who may spend least is refused first
    return found


def paid() -> float:
    """US dollars that the run has spent so far, at all endpoints together."""
    return sum(at["usd"] for at in spent().values())


def spent() -> Mapping[str, Mapping[str, float]]:
    """Endpoint -> what the run has spent there so far; empty where nobody has asked one. Raises Failure."""
    named = os.environ.get(KEPT_IN, "").rpartition("::")[0]
    try:
        return store().spent() if named and Path(named).exists() else {}
    except sqlite3.Error as e:
        raise Failure(f"{named}: {e}", "infra_error") from None
