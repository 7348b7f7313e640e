"""What a data set is held against: the questions of benchmarks and of other data sets.

    gsm8k · gsm8k=test.parquet                  a preset: its publisher's data set on the Hub, or this file of it
    owner/name · owner/name@revision:files      another one on the Hub
    a.jsonl · b.parquet · a folder · a run

Invariant: all questions are read, those too that a preset does not ask.
"""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.config.benchmarks import PresetConfig, presets
from pipeline.dataset import folder
from pipeline.domains import hub_data
from pipeline.records import Failure
from pipeline.scoring import benchmarks


def questions(place: str) -> list[str]:
    """Raises Failure naming what cannot be read."""
    preset, file, data = _meant(place)
    if data is not None:
        return benchmarks.questions(hub_data.download(data), preset)
    if preset is not None:
        return benchmarks.questions([Path(file)], preset)
    return [str(row["question"]) for row in folder.rows_of(Path(file))]


def refuse_missing(place: str) -> None:
    """Raises Failure for what is not there."""
    _, file, data = _meant(place)
    if data is not None:
        hub_data.count(data)
    elif not os.path.exists(file):
        raise Failure(
            f"{place}: no such file or folder; expected one, a data set on the Hub, or a preset of {_names()}"
        )


def called(place: str) -> str:
    """A short name."""
    preset, file, data = _meant(place)
    return place.partition("=")[0] if preset is not None else data.about if data is not None else Path(file).name


def _meant(place: str) -> tuple[PresetConfig | None, str, hub_data.Data | None]:
    """(the preset, the path, the data set on the Hub) that is meant."""
    if os.path.lexists(place):
        return None, place, None
    name, _, file = place.partition("=")
    if (preset := presets().get(name)) is not None:
        return preset, file, None if file else hub_data.named(preset.data, preset.files, preset.split)
    return None, place, hub_data.named(place, None, "test")


def _names() -> str:
    return ", ".join(presets())
