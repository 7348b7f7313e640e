"""Real documents that are on any machine where this project is installed: what installed packages say of themselves,
the files of documentation that they ship, CHAMP's concepts and hints, and a few Chinese texts of our own.

Nothing is copied into the repository; a corpus is collected where it is needed. Each package is a source, with the
licence that its metadata names.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

CHINESE = Path(__file__).parent / "chinese"
_FORMATS = (".md", ".rst", ".txt", ".html", ".pdf")
_LEGAL = ("license", "licence", "notice", "copying", "authors", "top_level", "entry_points", "requires", "sources")
_LARGEST = 400_000
"""Bytes of a file that is taken."""
_A_PACKAGE = 6
"""Files of a package, at most."""


def collect(folder: Path) -> list[dict[str, Any]]:
    """Write the documents below `folder`; returns the places of a corpus, each with its source and licence."""
    places = []
    found = sorted(metadata.distributions(), key=lambda one: one.metadata["Name"].lower())
    for package in {one.metadata["Name"].lower(): one for one in found}.values():
        name = package.metadata["Name"].lower()
        wrote = _readme(package, folder / name) + sum(1 for _ in _shipped(package, folder / name))
        if wrote:
            places.append({"path": str(folder / name), "source": name, "license": _licence(package)})
    champ = folder / "champ.jsonl"
    rows = _champ()
    champ.write_text("".join(json.dumps(row) + "\n" for row in rows))
    places.append({"path": str(champ), "source": "champ-dataset", "license": "mit"})
    places.append({"path": str(CHINESE), "source": "own texts", "license": "apache-2.0"})
    return places


def _readme(package: metadata.Distribution, folder: Path) -> int:
    said = package.metadata.get_payload()
    text = said if isinstance(said, str) and said.strip() else package.metadata.get("Description", "")
    if len(text) < 800:
        return 0
    kind = package.metadata.get("Description-Content-Type", "text/x-rst")
    folder.mkdir(parents=True, exist_ok=True)
    name = "README.md" if "markdown" in kind else "README.rst"
    (folder / name).write_text(text.encode("utf-8", "replace").decode())
    return 1


def _shipped(package: metadata.Distribution, folder: Path) -> Iterator[Path]:
    taken = 0
    for file in sorted(package.files or (), key=str):
        path = Path(str(file.locate()))
        legal = any(word in file.name.lower() for word in _LEGAL)
        if legal or path.suffix not in _FORMATS or taken == _A_PACKAGE or not path.is_file():
            continue
        if 1000 <= path.stat().st_size <= _LARGEST:
            taken += 1
            folder.mkdir(parents=True, exist_ok=True)
            to = folder / "-".join(file.parts)
            shutil.copyfile(path, to)
            yield to


def _licence(package: metadata.Distribution) -> str | None:
    said = package.metadata.get("License-Expression") or package.metadata.get("License") or ""
    if said and len(said) < 60:
        return said.strip()
    named = [one.rpartition(" :: ")[2] for one in package.metadata.get_all("Classifier") or () if "License" in one]
    return named[0] if named else None


def _champ() -> list[dict[str, str]]:
    import champ_dataset

    data = champ_dataset.load("v0")
    concepts = [": ".join(filter(None, (one.name, one.text))) for one in data.concepts.values()]
    return [{"text": text} for text in (*concepts, *(one.text for one in data.hints.values()))]
