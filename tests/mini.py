"""The mini world's settings, for tests that need some and change a few."""

from __future__ import annotations

from typing import Any, TypeVar

from pipeline.config import Section
from pipeline.config.loading import load

S = TypeVar("S", bound=Section)

MINI = load()


def changed(section: S, **fields: Any) -> S:
    """The section with other values in some fields, validated."""
    return type(section)(**{name: getattr(section, name) for name in type(section).model_fields} | fields)
