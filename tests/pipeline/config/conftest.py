"""For tests that add something: a package takes in one more file, and a registry one more entry, until a test ends."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Registry
from tests.pipeline.config.additions import Put


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Put]:
    added: list[str] = []

    def into_its_package(module: str, source: str) -> Path:
        home, _, name = module.rpartition(".")
        package = importlib.import_module(home)
        path = tmp_path / home / f"{name}.py"
        path.parent.mkdir()
        path.write_text(source)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(path.parent)])
        added.append(module)
        return path

    yield into_its_package
    for module in added:
        sys.modules.pop(module, None)
        home, _, name = module.rpartition(".")
        vars(sys.modules[home]).pop(name, None)


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[[Registry[Any], type], None]:
    def entry(registry: Registry[Any], section: type) -> None:
        monkeypatch.setattr(registry, "_sections", registry.sections)
        monkeypatch.setattr(registry, "_adapter", registry._adapter)
        registry.add(section)

    return entry
