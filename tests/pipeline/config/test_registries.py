"""The registries, walked: an entry names what exists and is of its kind, and what exists has an entry.

A file says by what it defines that it holds an implementation: a class with `async def vote` is a verifier, a subclass
of `Objective` without an abstract method is an objective, a subclass of `Domain` is a domain, a function from a kind of
teacher's settings to a `Teacher` makes a teacher, a `Language` is a language.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import actors.verifiers
import pipeline.domains
import sandbox
import trainers.objectives
from actors.teacher import Teacher
from pipeline.config import DOMAINS, OBJECTIVES, TEACHERS, VERIFIERS, Registry, TeacherConfig
from pipeline.domains.base import Domain
from sandbox.languages import LANGUAGES
from sandbox.toolchains import Language
from tests.pipeline.config.additions import DOMAIN, LANGUAGE, OBJECTIVE, VERIFIER, Put
from trainers.objectives.base import Objective


def is_verifier(found: Any) -> bool:
    votes = inspect.isclass(found) and inspect.iscoroutinefunction(getattr(found, "vote", None))
    return votes and not getattr(found, "_is_protocol", False)


def is_objective(found: Any) -> bool:
    return inspect.isclass(found) and issubclass(found, Objective) and not inspect.isabstract(found)


def is_domain(found: Any) -> bool:
    return inspect.isclass(found) and issubclass(found, Domain) and found is not Domain


def is_teacher(found: Any) -> bool:
    if not inspect.isfunction(found) or "settings" not in inspect.signature(found).parameters:
        return False
    hints = typing.get_type_hints(found)
    kind = issubclass(hints["settings"], TeacherConfig) and hints["settings"] is not TeacherConfig
    return kind and hints["return"] is Teacher


class Kind(NamedTuple):
    registry: Registry[Any]
    name: str
    holds: Callable[[Any], bool]
    package: ModuleType
    """Where implementations live."""

    def forgotten(self) -> list[str]:
        """A line for each implementation that no entry names."""
        named = {section.implementation for section in self.registry.sections.values()}
        return [
            f"{module.__file__}: {spec} has no entry in {self.name}"
            for module in modules_in(self.package)
            for found in vars(module).values()
            if self.holds(found) and found.__module__ == module.__name__
            if (spec := f"{module.__name__}:{found.__name__}") not in named
        ]


KINDS = {
    "verifiers": Kind(VERIFIERS, "pipeline.config.committee.VERIFIERS", is_verifier, actors.verifiers),
    "objectives": Kind(OBJECTIVES, "pipeline.config.objectives.OBJECTIVES", is_objective, trainers.objectives),
    "domains": Kind(DOMAINS, "pipeline.config.domains.DOMAINS", is_domain, pipeline.domains),
    "teachers": Kind(TEACHERS, "pipeline.config.skills.TEACHERS", is_teacher, pipeline.domains),
}
ENTRIES = [(kind, tag) for kind in KINDS for tag in KINDS[kind].registry.sections]


def modules_in(package: ModuleType) -> list[ModuleType]:
    names = [m.name for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    return [importlib.import_module(name) for name in names if not name.endswith("__main__")]


@pytest.mark.parametrize(("kind", "tag"), ENTRIES, ids=[f"{kind}-{tag}" for kind, tag in ENTRIES])
def test_an_entry_names_what_exists_and_is_of_its_kind(kind: str, tag: str) -> None:
    section = KINDS[kind].registry.sections[tag]
    found = section.model_construct().load()
    assert KINDS[kind].holds(found), f"{section.__name__}: {section.implementation} is none of the {kind}"


@pytest.mark.parametrize("kind", KINDS)
def test_what_exists_has_an_entry(kind: str) -> None:
    assert KINDS[kind].forgotten() == []


def test_a_domain_has_its_defaults_in_its_package() -> None:
    for section in DOMAINS.sections.values():
        package = importlib.import_module(section.implementation.partition(":")[0])
        assert section.defaults.is_file() and section.defaults.parent == Path(str(package.__file__)).parent


def languages_forgotten() -> list[str]:
    """The same for languages, whose entries are what they register."""
    return [
        f"{module.__file__}: {name} has no entry in sandbox.languages.LANGUAGES"
        for module in modules_in(sandbox)
        if module.__name__ != "sandbox.languages"
        for name, found in vars(module).items()
        if isinstance(found, Language) and not any(found is entry for entry in LANGUAGES.values())
    ]


def test_every_language_has_an_entry_and_every_entry_is_a_language() -> None:
    assert languages_forgotten() == []
    assert all(isinstance(entry, Language) for entry in LANGUAGES.values())


# ---------------------------------------------------------------- an entry that was forgotten


@pytest.mark.parametrize(
    ("kind", "module", "text", "name"),
    [
        ("verifiers", "actors.verifiers.text.echo", VERIFIER, "Echo"),
        ("objectives", "trainers.objectives.even", OBJECTIVE, "Even"),
        ("domains", "pipeline.domains.riddles", DOMAIN, "Riddles"),
    ],
)
def test_a_file_without_its_entry_is_named_and_so_is_the_registry(
    put: Put, kind: str, module: str, text: str, name: str
) -> None:
    path = put(module, text)
    assert KINDS[kind].forgotten() == [f"{path}: {module}:{name} has no entry in {KINDS[kind].name}"]


def test_a_language_without_its_entry_is_named_and_so_is_the_registry(put: Put) -> None:
    path = put("sandbox.plain", LANGUAGE)
    assert languages_forgotten() == [f"{path}: PLAIN has no entry in sandbox.languages.LANGUAGES"]
