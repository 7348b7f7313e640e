"""What a config names, tried: model folders, endpoints with their keys, the corpus, the benchmark.

Invariant: each thing is read or asked as the run will read or ask it, so that what fails here would fail there. An
endpoint gets one question of a few tokens; no engine is started, nothing is written, and each wait has a deadline.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline import domains
from pipeline.config import Config, ModelConfig, ModelTeacherConfig
from pipeline.dataset import references
from pipeline.domains import hub, hub_data
from pipeline.domains.base import Domain
from pipeline.records import Failure
from pipeline.scoring import benchmarks
from pipeline.skills import corpus
from pipeline.store.run_stages import RUN_STAGES

_PROMPT_SHARE = 0.15
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


def named(config: Config, needed: Needed = lambda field: True, stages: Collection[str] = RUN_STAGES) -> list[Check]:
    """Tries the folders and files that are `needed`, which the driver reads wherever pools and trainers are, and the
    endpoints that these stages ask."""
    try:
        domains.of(config.domain)
    except Failure as e:
        return [Check("config", "fail", str(e), "fix domain")]
    try:
        endpoints = _endpoints(config, stages)
        models = [*_models(config, needed), *_engines(config, needed)]
    except ModuleNotFoundError as e:  # the check of the packages says what to do
        return [Check("config", "warn", f"models and endpoints not tried, for {e.name} is not installed", "install it")]
    corpora = [_corpus(config)] if needed("acquire.corpus") else []
    benchmarks = [_benchmark(config)] if needed("evaluate.benchmark") else []
    avoided = list(_avoided(config)) if needed("synthesize.avoid") else []
    return [*models, *corpora, *benchmarks, *avoided, *endpoints]


def prompt(config: Config) -> Iterator[Check]:
    """What the proposer is told, against the tokens of an episode; nothing where `named` has told what is missing."""
    try:
        from actors.chat import system_prompt  # brings tokenizers, which the bare project has not
        from actors.chat_templates import chat_format

        domain, limits = domains.of(config.domain), config.episode.limits
        folder = domain.model(config.proposer.path, download=False)
        chat = chat_format(folder)
    except (Failure, ModuleNotFoundError):
        return
    told = chat.system(config.system_prompt or system_prompt(folder, domain.prompts.proposer), limits)
    tokens = len(chat.encode_text(told))
    share = tokens / limits.max_tokens
    found = f"the proposer's takes {tokens} tokens, {share:.0%} of episode.limits.max_tokens ({limits.max_tokens})"
    if share <= _PROMPT_SHARE:
        yield Check("prompts", "ok", found)
    else:
        todo = f"expected at most {_PROMPT_SHARE:.0%}: shorten it, or raise that limit"
        yield Check("prompts", "warn", found, todo)


# ---------------------------------------------------------------- models


def models_of(config: Config, needed: Needed) -> dict[str, ModelConfig]:
    """The models that are needed, by the field that names them; those behind endpoints are loaded elsewhere."""
    models: dict[str, ModelConfig | None] = {
        "proposer.path": config.proposer,
        "solve.base.path": config.solve.base,
        **{f"prober.ladder.{i}.path": model for i, model in enumerate(config.prober.ladder)},
        "committee.judge.path": config.committee.judge,
        "synthesize.proposer.path": config.synthesize.proposer,
        **{f"{field}.path": model for field, model in config.evaluate.alone().items()},
        "acquire.proposer.path": config.acquire.proposer,
        **{f"{field}.model.path": teacher.model for field, (_, teacher) in config.teacher.each().items()
           if isinstance(teacher, ModelTeacherConfig)},
    }  # fmt: skip
    return {field: model for field, model in models.items() if model and model.endpoint is None and needed(field)}


def _found(domain: Domain, path: str) -> str:
    """A folder that can be loaded, or a model that can be downloaded. Raises Failure."""
    if not domain.on_the_hub(path):
        return _model(domain.resolve(path))
    folder = hub.cached(path)
    return _model(folder) if folder is not None else f"on the Hub, {hub.size(path) / 1e9:.1f} GB to download"


def _models(config: Config, needed: Needed) -> Iterator[Check]:
    fields: dict[str, list[str]] = {}
    for where, model in models_of(config, needed).items():
        fields.setdefault(model.path, []).append(where)
    for path, names in fields.items():
        detail = {"path": path, "fields": names}
        try:
            found = _found(domains.of(config.domain), path)
        except Failure as e:
            todo = f"expected a Hugging Face model, a directory or a name on the Hub, in {', '.join(names)}"
            yield Check("model", "fail", str(e), todo, detail | {"kind": e.kind})
        else:
            yield Check("model", "ok", f"{path}: {found}", detail=detail)


def _engines(config: Config, needed: Needed) -> Iterator[Check]:
    """What is handed on to engines, read as they will read it."""
    from actors import engine_arguments

    for where, model in models_of(config, needed).items():
        field = f"{where.removesuffix('.path')}.engine.arguments"
        try:
            read = engine_arguments.read(model.engine.arguments)
        except Failure as e:
            yield Check("engine", "fail", f"{where.removesuffix('path')}{e}", detail={"field": field, "kind": e.kind})
        else:
            if read:
                yield Check("engine", "ok", f"{field}: {', '.join(read)}", detail={"field": field})


def _model(folder: Path) -> str:
    """What lies there. Raises Failure for what no engine could load."""
    from actors.chat_templates import chat_format  # brings tokenizers, which the bare project has not

    if not folder.is_dir():
        raise Failure(f"{folder}: no folder")
    config = _object(folder / "config.json")
    chat_format(folder)
    weights = hub.weights(folder)
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
        found = corpus.of(c, domain.resolve)
        documents = sum(1 for _ in found)
    except Failure as e:
        return Check("corpus", "fail", str(e), "fix acquire.corpus")
    left = dict(found.left_out)
    told = "".join(f"; {count} left out: {reason}" for reason, count in left.items())
    detail = {"documents": documents, "left_out": left}
    return Check("corpus", "ok", f"{documents} documents{told}", detail=detail)


def _benchmark(config: Config) -> Check:
    e, domain = config.evaluate, domains.of(config.domain)
    data = benchmarks.on_the_hub(domain, e.benchmark, e.mapping())
    try:
        if data is not None:
            return Check("benchmark", "ok", f"{data.about}: {hub_data.count(data)} files on the Hub, or in its cache")
        read = benchmarks.read(domain.resolve(e.benchmark), e.mapping(), e.problems, config.seed)
    except Failure as failure:
        return Check("benchmark", "fail", str(failure), "fix evaluate.benchmark", {"kind": failure.kind})
    left = "".join(f"; {count} left out: {reason}" for reason, count in sorted(read.left_out.items()))
    found = f"{len(read.rows)} problems of {e.benchmark}{left}"
    detail = {"problems": len(read.rows)}
    if e.problems is not None and len(read.rows) < e.problems:
        return Check("benchmark", "warn", found, f"evaluate.problems asks for {e.problems}", detail)
    return Check("benchmark", "ok", found, detail=detail)


def _avoided(config: Config) -> Iterator[Check]:
    """Those that are not there."""
    for place in config.synthesize.avoid or ():
        try:
            references.refuse_missing(place)
        except Failure as e:
            yield Check("avoid", "fail", str(e), "fix synthesize.avoid", {"kind": e.kind})


# ---------------------------------------------------------------- endpoints


def _endpoints(config: Config, stages: Collection[str]) -> list[Check]:
    """Each endpoint that these stages ask, asked once, all at a time."""
    from actors.openai_client import Later  # brings httpx, which the bare project has not
    from pipeline.pools import endpoints

    async def asked(endpoint: endpoints.Endpoint) -> Check:
        section, where = endpoint.section, ", ".join(endpoint.fields)
        has_key = bool(os.environ.get(section.api_key_env))
        model = section.model
        detail = {"base_url": section.base_url, "model": model, "fields": endpoint.fields, "key": has_key}
        try:
            odd = await endpoints.ask(endpoint)
        except Later as e:
            return Check("endpoint", "warn", str(e), f"look whether {where} can bear the run's calls", detail)
        except Failure as e:
            todo = f"start that endpoint, or fix {where}: base_url, model, or the key ({endpoint.key})"
            return Check("endpoint", "fail", str(e), todo, detail | {"kind": e.kind})
        if odd:
            return Check("endpoint", "warn", odd, f"take structured from {where}", detail)
        return Check("endpoint", "ok", f"{section.base_url} answers as {model} ({endpoint.key})", detail=detail)

    wanted = [endpoint for endpoint in endpoints.endpoints_of(config) if endpoint.stages & set(stages)]

    async def ask_all() -> list[Check]:
        return list(await asyncio.gather(*map(asked, wanted)))

    return asyncio.run(ask_all()) if wanted else []
