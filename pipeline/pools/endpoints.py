"""The endpoints that a config names: which stage asks them, whether they answer, and what a run has spent there.

Invariant: a stage that asks an endpoint begins only after each of its endpoints has answered one question of a few
tokens, asked as the stage will ask it (model, key, fields, form of the reply). A wrong key, a wrong model name, a dead
endpoint or a refused field is one line within `_ANSWER_S`, before anything is paid for. An endpoint that is merely slow
or busy is let through.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.openai_client import ChatClient, Later
from actors.reply_store import KEPT_IN, kept_in, store
from pipeline.config import Config, ModelConfig, ModelVerifierConfig, asks_endpoint
from pipeline.records import Failure, Halt

_ANSWER_S = 8.0
_QUESTION = [{"role": "user", "content": 'Answer with this JSON object: {"answer": "yes"}'}]
_SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
_TOKENS = 16
"""Of the reply; some endpoints refuse to write fewer."""


@dataclass
class Endpoint:
    """One endpoint, model and key, and the fields of the config that name it."""

    section: Any
    fields: list[str] = field(default_factory=list)
    stages: set[str] = field(default_factory=set)
    schema: bool = False
    """Somebody wants replies of a given form there."""

    @property
    def key(self) -> str:
        name = self.section.api_key_env
        return f"${name} is {'set' if os.environ.get(name) else 'not set'}"


def endpoints_of(config: Config) -> list[Endpoint]:
    """Each endpoint that the config names, once."""
    found: dict[tuple[str, str | None, str], Endpoint] = {}
    taught = () if config.sft.data is not None else ("sft",)
    verifiers = {f"committee.{name}": verifier for name, verifier in config.committee.judges().items()}
    asks: list[tuple[str, Any, tuple[str, ...]]] = [("teacher", config.teacher, ("acquire", *taught))]
    asks += [(name, v, (*taught, "mgpo", "synthesize")) for name, v in verifiers.items()]
    asks += [("reward.judge", config.reward.judge, ("mgpo",))]
    models: list[tuple[str, ModelConfig | None, tuple[str, ...]]] = [
        ("proposer", config.proposer, ("synthesize",)),
        ("synthesize.proposer", config.synthesize.proposer, ("synthesize",)),
        ("committee.judge", config.committee.judge, (*taught, "mgpo", "synthesize")),
        ("evaluate.model", config.evaluate.model, ("evaluate",)),
        *((f"prober.ladder.{i}", model, ("mgpo", "synthesize")) for i, model in enumerate(config.prober.ladder)),
    ]
    asks += [(f"{name}.endpoint", model.endpoint, stages) for name, model, stages in models if model]
    for name, section, stages in asks:
        if not asks_endpoint(section):
            continue
        endpoint = found.setdefault((section.base_url, section.model, section.api_key_env), Endpoint(section))
        endpoint.fields.append(name)
        endpoint.stages.update(stages)
        if isinstance(section, ModelVerifierConfig) and section.structured:
            endpoint.schema, endpoint.section = True, section
    return list(found.values())


async def ask(endpoint: Endpoint) -> str:
    """One question; says what the endpoint does not take, "" if nothing. Raises Later where it is slow or busy, Failure
    where no call can succeed."""
    client = ChatClient.of(endpoint.section, timeout_s=_ANSWER_S, retries=0)
    try:
        await client.complete(
            _QUESTION,
            temperature=getattr(endpoint.section, "temperature", 0.0),
            max_tokens=_TOKENS,
            seed=0,
            schema=_SCHEMA if endpoint.schema else None,
        )
    except Halt as e:
        raise Failure(str(e)) from None
    except Failure as e:
        if e.kind != "model_error":  # a reply that was cut off, or without text, is one
            raise
    finally:
        await client.close()
    if endpoint.schema and not client.takes_schemas:
        return f"{endpoint.section.base_url}: takes no schema for its replies; it is asked in words alone"
    return ""


async def check(config: Config, stages: Iterable[str]) -> list[str]:
    """Ask the endpoints of these stages, all at a time. Returns a line for each that is slow or busy; raises Failure
    that names the field of one that cannot be used."""
    wanted = [e for e in endpoints_of(config) if e.stages & set(stages)]
    answers = await asyncio.gather(*map(ask, wanted), return_exceptions=True)
    odd = []
    for endpoint, answer in zip(wanted, answers, strict=True):
        where = ", ".join(endpoint.fields)
        if isinstance(answer, Later):
            odd.append(f"{where}: {answer}")
        elif isinstance(answer, Failure):
            said = f"{answer}; expected base_url, model and key of an endpoint that answers ({endpoint.key})"
            raise Failure(f"{where}: {said}", answer.kind)
        elif isinstance(answer, BaseException):
            raise answer
        elif answer:
            odd.append(f"{where}: {answer}")
    return odd


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


def spent() -> Mapping[str, Mapping[str, float]]:
    """Endpoint -> what the run has spent there so far; empty where nobody has asked one."""
    named = os.environ.get(KEPT_IN, "").rpartition("::")[0]
    return store().spent() if named and Path(named).exists() else {}
