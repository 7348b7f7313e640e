"""What a config names, tried: model folders, endpoints with their keys, the corpus, the benchmark.

Invariant: each thing is read or asked as the run will read or ask it, so that what fails here would fail there. An
endpoint gets one question of a few tokens; no engine is started, nothing is written, and each wait has a deadline.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline import domains
from pipeline.config import Config, ModelConfig, ModelVerifierConfig, OpenAITeacherConfig, ProgramVerifierConfig
from pipeline.records import Failure
from pipeline.scoring import problems
from pipeline.skills import corpus

_ANSWER_S = 15.0
Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    name: str
    status: Status
    found: str
    todo: str = ""
    """What to do about it; empty if ok."""
    detail: dict[str, Any] = field(default_factory=dict)
    """The same as values, for programs."""


Needed = Callable[[str], bool]


def named(config: Config, elsewhere: bool, needed: Needed = lambda field: True) -> list[Check]:
    """Tries what fields name that are `needed`. `elsewhere`: the run joins a cluster, whose nodes may have folders that
    are not here."""
    try:
        endpoints = _endpoints(config, needed)
        models = list(_models(config, "warn" if elsewhere else "fail", needed))
    except ModuleNotFoundError as e:  # the check of the packages says what to do
        return [Check("config", "warn", f"models and endpoints not tried, for {e.name} is not installed", "install it")]
    corpora = [_corpus(config)] if needed("acquire.corpus") else []
    benchmarks = [_benchmark(config)] if needed("evaluate.benchmark") else []
    return [*models, *corpora, *benchmarks, *endpoints]


# ---------------------------------------------------------------- models


def _models(config: Config, missing: Status, needed: Needed) -> Iterator[Check]:
    fields: dict[str, list[str]] = {}
    domain = domains.of(config.domain)
    models: list[tuple[str, ModelConfig]] = [("proposer", config.proposer), ("solve.base", config.solve.base)]
    models += [(f"prober.ladder.{i}", model) for i, model in enumerate(config.prober.ladder)]
    models += [("committee.judge", config.committee.judge)] if config.committee.judge else []
    for where, model in models:
        if needed(f"{where}.path"):
            fields.setdefault(model.path, []).append(f"{where}.path")
    for path, names in fields.items():
        detail = {"path": path, "fields": names}
        try:
            found = _model(domain.resolve(path))
        except Failure as e:
            todo = f"expected a Hugging Face model directory in {', '.join(names)}"
            yield Check("model", missing, str(e), todo, detail)
        else:
            yield Check("model", "ok", f"{path}: {found}", detail=detail)


def _model(folder: Path) -> str:
    """What lies there. Raises Failure for what no engine could load."""
    from actors.chat import ChatFormat  # brings tokenizers, which the bare project has not

    if not folder.is_dir():
        raise Failure(f"{folder}: no folder")
    config = _object(folder / "config.json")
    ChatFormat(folder)
    index = folder / "model.safetensors.index.json"
    shards = set(_object(index).get("weight_map", {}).values()) if index.is_file() else set()
    weights = [folder / name for name in sorted(shards)] or sorted(
        (*folder.glob("*.safetensors"), *folder.glob("*.bin"))
    )
    if not weights:
        raise Failure(f"{folder}: no weights; expected .safetensors files")
    for file in weights:
        try:
            with file.open("rb") as f:
                begins = f.read(40)
        except OSError as e:
            raise Failure(f"{file}: {e.strerror}; the index names it") from None
        if not begins or begins.startswith(b"version https://git-lfs"):
            raise Failure(f"{file}: no weights, but {'a pointer of Git LFS' if begins else 'an empty file'}")
    size = sum(file.stat().st_size for file in weights)
    return f"{config.get('model_type', 'model of unknown type')}, {size / 1e6:,.0f} MB of weights"


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise Failure(f"{path}: {e.strerror}") from None
    except (ValueError, RecursionError):
        raise Failure(f"{path}: not JSON") from None
    if not isinstance(value, dict):
        raise Failure(f"{path}: {type(value).__name__}, expected an object")
    return value


# ---------------------------------------------------------------- corpus and benchmark


def _corpus(config: Config) -> Check:
    c, domain = config.acquire, domains.of(config.domain)
    try:
        found = corpus.read([domain.resolve(name) for name in c.corpus], c.on_bad_record, c.max_document_chars)
    except Failure as e:
        return Check("corpus", "fail", str(e), "fix acquire.corpus")
    left = {reason: len(names) for reason, names in found.left_out.items()}
    told = "".join(f"; {count} left out: {reason}" for reason, count in left.items())
    detail = {"documents": len(found.documents), "left_out": left}
    return Check("corpus", "ok", f"{len(found.documents)} documents{told}", detail=detail)


def _benchmark(config: Config) -> Check:
    e = config.evaluate
    try:
        rows = problems.read(domains.of(config.domain).resolve(e.benchmark), e.problems, config.seed)
    except Failure as failure:
        return Check("benchmark", "fail", str(failure), "fix evaluate.benchmark")
    found = f"{len(rows)} problems of {e.benchmark}"
    detail = {"problems": len(rows)}
    if e.problems is not None and len(rows) < e.problems:
        return Check("benchmark", "warn", found, f"evaluate.problems asks for {e.problems}", detail)
    return Check("benchmark", "ok", found, detail=detail)


# ---------------------------------------------------------------- endpoints


@dataclass(frozen=True)
class _Endpoint:
    base_url: str
    model: str
    api_key_env: str


def _endpoints(config: Config, needed: Needed) -> list[Check]:
    """Each endpoint that the config names, asked once, all at a time."""
    fields: dict[_Endpoint, list[str]] = {}

    def add(where: str, section: Any) -> None:
        if section.base_url is not None and needed(where):
            endpoint = _Endpoint(section.base_url, section.model or "default", section.api_key_env)
            fields.setdefault(endpoint, []).append(where)

    if isinstance(config.teacher, OpenAITeacherConfig):
        add("teacher", config.teacher)
    for i, verifier in enumerate(config.committee.verifiers):
        if isinstance(verifier, ModelVerifierConfig | ProgramVerifierConfig):
            add(f"committee.verifiers.{i}", verifier)
    if config.reward.judge is not None:
        add("reward.judge", config.reward.judge)

    async def ask_all() -> list[Check]:
        return list(await asyncio.gather(*(_asked(endpoint, names) for endpoint, names in fields.items())))

    return asyncio.run(ask_all()) if fields else []


async def _asked(endpoint: _Endpoint, names: list[str]) -> Check:
    from actors.openai_client import ChatClient  # brings httpx, which the bare project has not

    where = ", ".join(names)
    has_key = bool(os.environ.get(endpoint.api_key_env))
    key = f"${endpoint.api_key_env} is {'set' if has_key else 'not set'}"
    detail = {"base_url": endpoint.base_url, "model": endpoint.model, "fields": names, "key": has_key}
    client = ChatClient(
        endpoint.base_url, endpoint.model, endpoint.api_key_env, timeout_s=_ANSWER_S, retries=0, concurrency=1
    )
    try:
        await client.complete([{"role": "user", "content": "Say yes."}], temperature=0, max_tokens=4)
    except Failure as e:
        if e.kind != "model_error":  # an answer without text is one
            todo = f"start that endpoint, or fix {where}: base_url, model, or the key ({key})"
            return Check("endpoint", "fail", str(e), todo, detail | {"kind": e.kind})
    finally:
        await client.close()
    return Check("endpoint", "ok", f"{endpoint.base_url} answers as {endpoint.model} ({key})", detail=detail)
