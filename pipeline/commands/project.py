"""What the project says of itself: its version, the Python and the packages that it needs.

Read from pyproject.toml where the code has one beside it (a checkout, or what a Ray job brought along), else from the
metadata of the installed package: one of the two is always there.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

_NAME = "agentic-proposing"
_BESIDE = Path(__file__).parents[2] / "pyproject.toml"


def version() -> str:
    return str(told["version"]) if (told := _beside()) else metadata.version(_NAME)


def requires_python() -> str:
    return str(told["requires-python"]) if (told := _beside()) else metadata.metadata(_NAME)["Requires-Python"]


def requires(*extras: str) -> Iterator[str]:
    """The requirements of the core and of these extras, without the extras that extras name."""
    if told := _beside():
        found = [*told["dependencies"], *(text for extra in extras for text in told["optional-dependencies"][extra])]
    else:
        found = metadata.requires(_NAME) or []
    for text in found:
        want = Requirement(text)
        wanted = not want.marker or any(want.marker.evaluate({"extra": extra}) for extra in ("", *extras))
        if want.name != _NAME and wanted:
            yield text


def _beside() -> dict[str, Any] | None:
    if not _BESIDE.is_file():
        return None
    told: dict[str, Any] = tomllib.loads(_BESIDE.read_text(encoding="utf-8"))["project"]
    return told if told["name"] == _NAME else None
