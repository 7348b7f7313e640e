"""The card of a model that a run trained: README.md, whose YAML front matter the Hub reads.

Invariant: it says nothing that depends on when or where it was written, and a figure that was not measured is said to
be missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline.dataset.card import UNKNOWN, shown, table
from pipeline.domains import hub

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Figure:
    """One result: what was measured, on what, and its 95 % interval."""

    name: str
    value: float | None
    interval: Sequence[float] | None
    on: str


@dataclass(frozen=True)
class About:
    """What a card tells."""

    name: str
    what: str
    """The model in a sentence."""
    base: str
    license: str | None
    """Of the model, as the Hub writes it."""
    data: Sequence[str]
    """What it learned from, a sentence each."""
    training: Mapping[str, Any]
    """Objective, steps and the like."""
    results: Sequence[Figure]
    words: str | None
    """What the results come to; None: nothing is shown."""
    made_by: Mapping[str, str]
    """Digests and versions."""
    source_license: str | None = None
    """Of what the training data were made from."""


def text(about: About) -> str:
    front: dict[str, Any] = {"license": about.license or UNKNOWN}
    if hub.is_name(about.base):
        front["base_model"] = about.base.partition("@")[0]
    front |= {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["reasoning", "agentic-proposing"],
    }
    parts = [
        "---\n" + yaml.safe_dump(front, sort_keys=False, allow_unicode=True) + "---\n",
        f"# {about.name}\n",
        f"{about.what}\n",
        f"Base model: {about.base}\n",
        "## Data\n",
        "".join(f"- {line}\n" for line in about.data),
        table("Training", "", about.training),
        "## Results\n",
        _results(about),
        "## Licence\n",
        f"Of this model: {about.license or f'{UNKNOWN}; the licence of the base model holds'}. "
        f"Of what the data were made from: {about.source_license or UNKNOWN}.\n",
        table("Made by", "", about.made_by),
    ]
    return "\n".join(parts)


def _results(about: About) -> str:
    lines = ["| | value | 95 % interval | on |", "|---|---|---|---|"]
    for figure in about.results:
        value = NOT_MEASURED if figure.value is None else f"{100 * figure.value:.1f} %"
        between = "–" if not figure.interval else "{:.1f} to {:.1f} %".format(*(100 * end for end in figure.interval))
        lines.append(f"| {figure.name} | {value} | {between} | {shown(figure.on)} |")
    return "\n".join(lines) + "\n" + (f"\n{about.words}\n" if about.words else "")
