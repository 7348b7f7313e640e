"""Presets of public benchmarks: what their publishers call the fields, and the protocol by which they are asked."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from pipeline.config.models import SamplingConfig
from pipeline.config.section import Section
from pipeline.config.types import Positive
from pipeline.records import AnswerKind

_FILE = Path(__file__).parent / "presets.yaml"


class KindsConfig(Section):
    by: str
    """The field that says of which kind an answer is."""
    of: dict[str, AnswerKind]
    """Its values; rows with others are left out."""


class PresetConfig(Section):
    data: str
    """The publisher's data set, by its name on the Hub."""
    split: str = "train"
    """Of it, the part that is asked."""
    files: str | None = None
    """A pattern for the paths of its files that are asked, where the split alone does not say which."""
    fields: dict[str, str]
    """Our field -> the publisher's."""
    kind: AnswerKind | None = None
    """Of all answers."""
    kinds: KindsConfig | None = None
    keep: dict[str, tuple[str, ...]] = Field(default={})
    """Field -> the values whose rows are kept."""
    reader: Literal["rows", "human_eval"] = "rows"
    """human_eval: tests are a function `check`, whose asserts become calls."""
    samples: Positive
    sampling: SamplingConfig


@cache
def presets() -> dict[str, PresetConfig]:
    tree = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return {name: PresetConfig.model_validate(fields) for name, fields in tree.items()}


def protocol(name: Any) -> dict[str, Any]:
    """What a preset says of the settings of `evaluate`; {} for a name that is none, which validation then says."""
    preset = presets().get(name) if isinstance(name, str) else None
    if preset is None:
        return {}
    sampling = preset.sampling.model_dump()
    return {"benchmark": preset.data, "samples": preset.samples, "sampling": sampling, "problems": None}
