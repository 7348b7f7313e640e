"""The card of a data set: README.md, whose YAML front matter the Hub and `datasets` read.

Invariant: it says nothing that depends on when or where it was written, so the same data set has the same card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
UNKNOWN = "unknown"
_CHECKED = {True: "accepted by a committee of verifiers", False: "**not checked**: answers may be wrong"}


@dataclass(frozen=True)
class About:
    """What a card tells."""

    name: str
    rows: int
    license: str | None = None
    """Of the sources, as the Hub writes it."""
    sources: Sequence[str] = ()
    counts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Heading -> what is counted -> how many."""
    models: Mapping[str, str] = field(default_factory=dict)
    """Role -> model."""
    made_by: Mapping[str, str] = field(default_factory=dict)
    """Digests and versions."""
    filtered: bool = True
    """Whether a committee has accepted each row."""


def text(about: About, shards: Sequence[str], provenance: str | None) -> str:
    """The card of a folder with these files."""
    configs: list[dict[str, Any]] = [
        {"config_name": "default", "default": True, "data_files": [{"split": "train", "path": list(shards)}]}
    ]
    if provenance:
        configs.append({"config_name": "provenance", "data_files": [{"split": "train", "path": provenance}]})
    front = {
        "pretty_name": about.name,
        "license": about.license or UNKNOWN,
        "task_categories": ["text-generation"],
        "tags": ["reasoning", "synthetic"],
        "size_categories": [next((size for most, size in _SIZES if about.rows < most), "n>1M")],
        "configs": configs,
    }
    parts = [
        "---\n" + yaml.safe_dump(front, sort_keys=False, allow_unicode=True) + "---\n",
        f"# {about.name}\n",
        f"{about.rows} problems with answers, written by a language model, {_CHECKED[about.filtered]}.\n",
        "A row has `question`, `answer` and `answer_kind` (math, code, choice or text); where an answer is a program, "
        "`checks` are its tests, each a JSON text. How rows were made stands in the provenance alone"
        + (", a row each under the same number, keyed by `id`:\n" if provenance else ".\n"),
        _code(provenance),
    ]
    for heading, counted in about.counts.items():
        if counted:
            parts.append(table(heading, "", counted))
    if about.models:
        parts.append(table("Models", "model", about.models))
    parts.append(_sources(about))
    if about.made_by:
        parts.append(table("Made by", "", about.made_by))
    return "\n".join(part for part in parts if part)


def _code(provenance: str | None) -> str:
    more = '    load_dataset(folder, "provenance", split="train")\n' if provenance else ""
    return f'    load_dataset(folder, split="train")\n{more}'


def table(heading: str, column: str, values: Mapping[str, Any]) -> str:
    lines = [f"| {name} | {shown(value)} |" for name, value in values.items()]
    return f"## {heading}\n\n| | {column} |\n|---|---|\n" + "\n".join(lines) + "\n"


def shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|").replace("\n", " ")


def _sources(about: About) -> str:
    license = about.license or f"{UNKNOWN} (`acquire.license` was not set)"
    listed = "".join(f"- {source}\n" for source in about.sources)
    return f"## Sources\n\nLicence of the sources: {license}.\n\n{listed}"
