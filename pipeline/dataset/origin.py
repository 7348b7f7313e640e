"""Where a run's data set comes from: its models, sources, prompts and code, for the card and the provenance.

Invariant: no path of the machine that made it is told: a model or corpus that is a local path goes by its last name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from pipeline.config import Config, ModelConfig
from pipeline.dataset.card import About
from pipeline.store.identity import identity_of
from pipeline.store.rundir import RunDir


def models(config: Config) -> dict[str, str]:
    """Role -> model, as a run names it."""
    writer = config.synthesize.proposer or config.proposer
    trained = "" if config.synthesize.proposer or config.proposer.endpoint else ", trained by MGPO"
    verifiers = [str(getattr(v, "model", "") or v.kind) for v in config.committee.verifiers]
    teacher = ", ".join(public(teacher.called) for _, teacher in config.teacher.each().values())
    rewriting = config.synthesize.rewrite
    return {
        "proposer": f"{named(writer)}{trained}" if rewriting is None else f"{teacher}, rewriting by {rewriting.kind}",
        "teacher": teacher,
        "committee": ", ".join(public(name) for name in verifiers),
        "probers": ", ".join(named(m) for m in config.prober.ladder),
    }


def named(model: ModelConfig) -> str:
    """What a model may be called in public."""
    return model.endpoint.model if model.endpoint else public(model.path)


def public(name: str) -> str:
    """A name on the Hub or a bundled one as it stands; of a path the last part."""
    return Path(name).name if name.startswith(("/", ".", "~")) or name.count("/") > 1 else name


def prompts_digest(run: RunDir) -> str | None:
    """A digest of all that the run's models are told; None of a run that noted none."""
    path = run.path("prompts.json")
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else None


def code_version() -> str:
    try:
        return f"agentic-proposing {metadata.version('agentic-proposing')}"
    except metadata.PackageNotFoundError:  # run from a checkout
        return "not installed"


def made_by(config: Config) -> dict[str, str]:
    """Versions and digests."""
    return {
        "code": code_version(),
        "domain": config.domain.model_dump()["kind"],
        "config": identity_of(config)[:16],
    }


def about(
    config: Config,
    rows: int,
    counts: Mapping[str, Mapping[str, float]],
    models: Mapping[str, str],
    prompts: str | None,
) -> About:
    places = [place if isinstance(place, str) else place.path for place in config.acquire.corpus]
    if config.synthesize.rewrite is not None:
        places = [config.synthesize.rewrite.seeds]
    return About(
        name=config.name, rows=rows, filtered=config.synthesize.filter == "committee", license=config.acquire.license,
        sources=[public(place) for place in places], counts=counts, models=models,
        made_by=made_by(config) | ({"prompts": prompts} if prompts else {}),
    )  # fmt: skip
