"""What a setting accepts, in plain words: for error lines, for the reference, for nobody who knows Python alone.

Invariant: the words follow from the annotation alone, so a bound is said once, where it holds.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic.fields import FieldInfo

from pipeline.config.section import TAGS, Registry, Section

Kind = tuple[Any, tuple[Any, ...]]
"""An annotation, and what stands beside it in `Annotated`."""


def of_field(field: FieldInfo) -> Kind:
    return field.annotation, tuple(field.metadata)


def accepted(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """`expected …`, without that word."""
    annotation, metadata = _plain(annotation, metadata)
    if registry := next((m for m in metadata if isinstance(m, Registry)), None):
        return f"a section with {registry.tag} {_either(map(repr, registry.sections))}"
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        some = [accepted(a, metadata) for a in args if a is not type(None)]
        return _either([*some, *(["null"] if type(None) in args else [])])
    if origin is Literal:
        return args[0].__repr__() if len(args) == 1 else f"one of {', '.join(map(repr, args))}"
    if origin is tuple:
        if len(args) == 2 and args[1] is Ellipsis:
            return f"a list{_length(metadata)}, each {accepted(args[0])}"
        return f"a list of {len(args)}: {', '.join(map(accepted, args))}"
    if origin is dict:
        return f"a mapping of names, each to {accepted(args[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return f"a section with some of {', '.join(annotation.model_fields)}"
    if annotation is bool:
        return "true or false"
    if annotation in (int, float):
        return f"a{' whole' if annotation is int else ''} number{_bounds(metadata)}"
    return "text"


def _plain(annotation: Any, metadata: Iterable[Any]) -> Kind:
    """Without `Annotated`, whose parts, and those of a `Field` in it, become metadata."""
    found = list(metadata)
    while get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        found += more
    flat = [inner for m in found for inner in (m.metadata if isinstance(m, FieldInfo) else [m])]
    return annotation, tuple(flat)


def _bounds(metadata: Iterable[Any]) -> str:
    said = []
    for bound in metadata:
        if isinstance(bound, Ge):
            said.append(f"of at least {bound.ge:g}")
        elif isinstance(bound, Gt):
            said.append(f"above {bound.gt:g}")
        elif isinstance(bound, Le):
            said.append(f"at most {bound.le:g}")
        elif isinstance(bound, Lt):
            said.append(f"below {bound.lt:g}")
    return f" {' and '.join(said)}" if said else ""


def _length(metadata: Iterable[Any]) -> str:
    said = [f"at least {m.min_length}" for m in metadata if isinstance(m, MinLen)]
    said += [f"at most {m.max_length}" for m in metadata if isinstance(m, MaxLen)]
    return f" of {' and '.join(said)}" if said else ""


def _either(words: Iterable[str]) -> str:
    *some, last = words
    return f"{', '.join(some)} or {last}" if some else last


# ---------------------------------------------------------------- where a path leads


def sections_of(annotation: Any, metadata: Iterable[Any] = ()) -> Iterator[type[Section]]:
    """The sections that an annotation is made of, those of a registry included."""
    annotation, metadata = _plain(annotation, metadata)
    registries = [m for m in metadata if isinstance(m, Registry)]
    if registries:
        for registry in registries:
            yield from registry.sections.values()
    elif isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    else:
        for inner in get_args(annotation):
            yield from sections_of(inner)


def tags(section: type[Section]) -> tuple[str, ...]:
    """What tells a section of a registry apart."""
    return tuple(t for f in TAGS if f in section.model_fields for t in get_args(section.model_fields[f].annotation))


def below(kind: Kind, part: str | int) -> Kind | None:
    """What lies at a field, an index or a key; None where nothing is known to lie there."""
    annotation, metadata = _plain(*kind)
    for section in sections_of(annotation, metadata):
        if part in section.model_fields and not isinstance(part, int):
            return of_field(section.model_fields[part])
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is tuple and str(part).isdigit():
        return (args[0] if args[-1] is Ellipsis else args[min(int(part), len(args) - 1)]), ()
    if origin is dict:
        return args[1], ()
    if origin in (Union, types.UnionType):
        return next((found for a in args if a is not type(None) and (found := below((a, metadata), part))), None)
    return None
