"""Every setting with its meaning, from the annotations and docstrings: the reference, and a JSON schema for editors.

Invariant: nothing is said here that the sections do not say; a section that occurs at several places is described once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic_core import to_jsonable_python

from pipeline.config import words
from pipeline.config.root import Config, domain_defaults
from pipeline.config.section import Registry, Section

_UNITS = {
    "_s": "seconds",
    "_mb": "MB",
    "_gb": "GB",
    "_chars": "characters",
    "_tokens": "tokens",
    "_len": "tokens",
    "_gpus": "GPUs",
    "_cpus": "CPUs",
}


@dataclass(frozen=True)
class Setting:
    name: str
    type: str
    """With bounds, in words."""
    unit: str
    default: str
    source: str
    """Who chose the default."""
    meaning: str


def settings(section: type[Section]) -> list[Setting]:
    """The fields of a section that hold a value, or a section of another kind each."""
    found = []
    for name, field in section.model_fields.items():
        kind, meaning = words.of_field(field), " ".join((field.description or "").split())
        inner = list(words.sections_of(*kind))
        default = "required" if field.is_required() else _short(field.default)
        if inner and not meaning:
            meaning = " ".join((inner[0].__doc__ or "").split()) if inner[0].__doc__ else ""
        accepts = words.accepted(*kind)
        if inner and "text or " not in accepts:
            accepts, default = f"section {' or '.join(title(s) for s in inner)}", "-"
        found.append(Setting(name, accepts, _unit(name), default, _source(meaning, field), meaning))
    return found


def _unit(name: str) -> str:
    return next((unit for end, unit in _UNITS.items() if name.endswith(end)), "")


def _source(meaning: str, field: Any) -> str:
    if field.is_required():
        return "you, or the domain"
    if "open in the paper" in meaning or "leaves all" in meaning:
        return "ours; the paper leaves it open"
    return "the paper" if "in the paper" in meaning or "as the paper" in meaning or "PAPER" in meaning else "ours"


def _short(value: Any) -> str:
    value = to_jsonable_python(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value) if value != {} else "{}"


def title(section: type[Section]) -> str:
    """The name under which the reference describes a section."""
    tag = words.tags(section)
    name = section.__name__.removesuffix("Config").removesuffix("Stage") or "The whole"
    return f"{name} ({tag[0]})" if tag else name


def places(section: type[Section] = Config, where: str = "") -> Iterator[tuple[str, type[Section]]]:
    """(dotted path, section) of every section in the tree, in its order; the root's path is empty."""
    yield where, section
    for name, field in section.model_fields.items():
        path = f"{where}.{name}".lstrip(".")
        listed = "tuple" in str(field.annotation) and get_args(field.annotation)
        for inner in words.sections_of(*words.of_field(field)):
            yield from places(inner, f"{path}.N" if listed else path)


def at(path: str) -> list[tuple[str, type[Section]]]:
    """The sections that a dotted path names, with those below; a number in it stands for any entry of a list."""
    wanted = ".".join("N" if part.isdigit() else part for part in path.split("."))
    return [(place, s) for place, s in places() if place == wanted or place.startswith((f"{wanted}.", f"{wanted}.N"))]


def page() -> str:
    """The reference as Markdown."""
    found: dict[type[Section], list[str]] = {}
    for place, section in places():
        found.setdefault(section, []).append(place)
    mini = domain_defaults({"kind": "mini"})
    lines = [
        "# Every setting",
        "",
        "Made by `propose config show --markdown` from the sections in `pipeline/config`; a test fails where they and",
        "this page differ. `propose config show --docs SECTION` shows a part of it in the terminal, with the values of",
        "a config. Defaults are for models of 0.5 to 30B parameters; what the mini world sets otherwise stands behind",
        "*mini*. A field that is required is so where no domain sets it.",
    ]
    for section, where in found.items():
        lines += ["", f"## {title(section)}", ""]
        if section.__doc__ and section is not Config:
            lines += [" ".join(section.__doc__.split()), ""]
        if section is not Config:
            lines += [f"At {', '.join(f'`{w}`' for w in dict.fromkeys(where))}.", ""]
        lines += ["| field | accepts | unit | default | chosen by | meaning |", "|---|---|---|---|---|---|"]
        for s in settings(section):
            own = _lookup(mini, where, s.name)
            default = s.default if own is None else f"{s.default}; *mini* {_short(own)}"
            cells = (f"`{s.name}`", s.type, s.unit, default, s.source, s.meaning)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _lookup(tree: Any, where: list[str], name: str) -> Any:
    """What the tree has for a field of a section that stands at one place only, if it is a value."""
    if len(set(where)) != 1:
        return None
    for part in [*filter(None, where[0].split(".")), name]:
        tree = tree.get(part) if isinstance(tree, dict) else None
    return (
        None if isinstance(tree, dict) or (isinstance(tree, list) and any(isinstance(v, dict) for v in tree)) else tree
    )


def schema() -> dict[str, Any]:
    """The JSON schema of a config file. A section may be given in part, for the rest is its domain's default."""
    found: dict[str, Any] = _partial(Config.model_json_schema(mode="validation"))
    found["required"] = ["domain"]
    names = list(_domain_names())
    found["properties"]["domain"] = {"anyOf": [{"enum": names}, found["properties"]["domain"]]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def _domain_names() -> Iterator[str]:
    for m in Config.model_fields["domain"].metadata:
        if isinstance(m, Registry):
            yield from m.sections


def _partial(node: Any) -> Any:
    """Nothing is required, and a section that leaves its tag to the default fits any of its registry."""
    if isinstance(node, list):
        return [_partial(v) for v in node]
    if not isinstance(node, dict):
        return node
    kept = {"anyOf" if k == "oneOf" else k: v for k, v in node.items() if k not in ("required", "discriminator")}
    return {
        k: {name: _partial(field) for name, field in v.items()} if k in ("properties", "$defs") else _partial(v)
        for k, v in kept.items()
    }
