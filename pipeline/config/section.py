"""What every section of the config has in common, and registries of sections told apart by a tag.

Invariant: a section that exists is valid. A section given in part keeps the rest of the default that it has *here*,
which need not be its type's.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar, Union, get_args

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter, model_validator
from pydantic_core import core_schema


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _over_the_defaults(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        fields = cls.model_fields
        return {
            k: over(fields[k].default, _no_truth(fields[k].annotation, v)) if k in fields else v
            for k, v in given.items()
        }

    def contradictions(self) -> Iterator[str]:
        """Fields that do not go together, a line each."""
        yield from ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if found := list(self.contradictions()):
            raise ValueError("\n".join(found))
        return self


def _no_truth(annotation: Any, given: Any) -> Any:
    """Truth values, which YAML also makes of "yes" and "on", as text where a number is wanted: Python takes
    true for 1."""
    kinds = _kinds(annotation)
    if bool in kinds or not any(kind in (int, float) or type(kind) is int for kind in kinds):
        return given
    if isinstance(given, dict):
        return {name: _no_truth(annotation, value) for name, value in given.items()}
    if isinstance(given, list | tuple):
        return [_no_truth(annotation, value) for value in given]
    return str(given).lower() if isinstance(given, bool) else given


def _kinds(annotation: Any) -> set[Any]:
    """The types, and the values of literals, that an annotation is made of."""
    inner = get_args(annotation)
    return set().union(*map(_kinds, inner)) if inner else {annotation}


TAGS = ("kind", "name")
"""Fields that tell sections of one registry apart."""


def over(default: Any, given: Any) -> Any:
    """`given` with what it leaves out taken from `default`, where both are sections or mappings; a section with another
    tag takes nothing."""
    if isinstance(default, Section):
        default = {name: getattr(default, name) for name in type(default).model_fields}
    if not isinstance(default, dict) or not isinstance(given, dict):
        return given
    if any(tag in default and given.get(tag, default[tag]) != default[tag] for tag in TAGS):
        return given
    return default | {k: over(default.get(k), v) for k, v in given.items()}


class Implemented(Section):
    """Settings of something that is implemented elsewhere, which the settings name and never import."""

    implementation: ClassVar[str]
    """"module:name" of the class or function that these settings make."""

    def load(self) -> Any:
        """What `implementation` names."""
        module, _, name = self.implementation.partition(":")
        return getattr(importlib.import_module(module), name)


S = TypeVar("S", bound=Implemented)


class Registry(Generic[S]):
    """The sections that a field accepts, told apart by `tag`. Used as `Annotated[<base>, REGISTRY]`.

    One more is one file for what it does, and one entry here: its settings, which say where the file is.
    """

    def __init__(self, tag: str, sections: Iterable[type[S]]):
        self.tag = tag
        self._sections = {section.model_fields[tag].default: section for section in sections}
        self._build()

    def add(self, section: type[S]) -> None:
        """Accept one more kind of section; its tag's default is its name."""
        self._sections[section.model_fields[self.tag].default] = section
        self._build()

    def _build(self) -> None:
        union: Any = Union[tuple(self._sections.values())]  # noqa: UP007  # of a tuple that grows
        self._adapter: TypeAdapter[S] = TypeAdapter(Annotated[union, Field(discriminator=self.tag)])

    @property
    def sections(self) -> dict[str, type[S]]:
        """Section by tag."""
        return dict(self._sections)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.validate, json_schema_input_schema=self._adapter.core_schema
        )

    def validate(self, given: Any) -> S:
        """A mapping with a known tag, or a section, as a section. Raises ValidationError."""
        return self._adapter.validate_python(given)
