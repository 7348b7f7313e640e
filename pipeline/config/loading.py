"""What a user wrote -> `Config`, and back: YAML files and dotted overrides.

Invariant: unknown keys, wrong types and contradictions end in one `Failure` line that names the file or field, the
value and what would be accepted.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from pipeline.config import Config, Section
from pipeline.records import Failure


class NotYAML(ValueError):
    """Says what is wrong; `where` is ":line:column" if that is known, else empty."""

    def __init__(self, what: str, where: str = ""):
        super().__init__(what)
        self.where = where


def parse(text: str) -> Any:
    """YAML -> plain values. Raises NotYAML."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise NotYAML(getattr(e, "problem", None) or "syntax error", where) from None
    except (ValueError, LookupError, AttributeError, RecursionError) as e:
        # What has the form of a date, or a tag, is made one, by constructors that take their text on trust.
        raise NotYAML(f"a value that cannot be: {e}") from None


def load(path: Path | None = None, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """Read a YAML file (None: all defaults) and apply dotted overrides `a.b.c=value` (value is YAML).

    Raises Failure with one line for an unreadable file, broken YAML, or the first invalid field.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            loaded = parse(path.read_text(encoding="utf-8"))
        except OSError as e:
            raise Failure(f"config {path}: {e.strerror or e}; expected a readable YAML file") from None
        except UnicodeDecodeError:
            raise Failure(f"config {path}: not UTF-8; expected a YAML file") from None
        except NotYAML as e:
            raise Failure(f"config {path}{e.where}: not YAML ({e})") from None
        if loaded is not None and not isinstance(loaded, dict):
            raise Failure(f"config {path}: top level is {type(loaded).__name__}, expected a mapping of sections")
        tree = loaded or {}
    for override in overrides:
        _apply(tree, override)
    return validate(tree, source=str(path) if path else "config")


def validate(tree: dict[str, Any], source: str = "config") -> Config:
    """A mapping -> Config. Raises Failure naming the first invalid field, its value and what is accepted."""
    try:
        return Config.model_validate(tree)
    except ValidationError as e:
        first = e.errors()[0]
        more = f" (and {e.error_count() - 1} more)" if e.error_count() > 1 else ""
        raise Failure(f"{source}: {_explain(first)}{more}") from None


def dump(config: Config) -> str:
    """The resolved config as YAML that `load` reads back to an equal Config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise Failure(f"--set {override!r}: expected dotted.field=value, for example trainer.workers=2")
    try:
        value = parse(text)
    except NotYAML:
        raise Failure(f"--set {key}: {text!r} is not a YAML value") from None
    *parents, leaf = key.strip().split(".")
    node: Any = tree
    default: Any = Config().model_dump(mode="json")
    for part in parents:
        default = default.get(part) if isinstance(default, dict) else None
        node = _child(node, part, default, override)
    if isinstance(node, list):
        node[_index(node, leaf, override)] = value
    else:
        node[leaf] = value


def _child(node: Any, part: str, default: Any, override: str) -> Any:
    if isinstance(node, list):
        child = node[_index(node, part, override)]
    else:
        # A section's fields are filled in later; of a list, all entries but one would be lost.
        child = node.setdefault(part, deepcopy(default) if isinstance(default, list) else {})
    if not isinstance(child, dict | list):
        raise Failure(f"--set {override!r}: {part} is a value ({child!r}), not a section")
    return child


def _index(node: list[Any], part: str, override: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise Failure(f"--set {override!r}: {part!r} is no index of a list of {len(node)}")
    return int(part)


def _explain(error: Any) -> str:
    """One line of a pydantic error: field, value, what would be accepted."""
    path, accepted = _locate(error["loc"])
    where = ".".join(path) or "config"
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown field; accepted here: {', '.join(accepted)}"
    if error["type"] == "union_tag_invalid":
        context = error["ctx"]
        return f"{where}.{context['discriminator'][1:-1]}: expected {context['expected_tags']} (got {context['tag']!r})"
    message = error["msg"].removeprefix("Value error, ")
    shown = "" if error["type"] in ("missing", "value_error") else f" (got {error['input']!r})"
    return f"{where}: {message[0].lower()}{message[1:]}{shown}"


def _locate(loc: tuple[Any, ...]) -> tuple[list[str], list[str]]:
    """The path as the user writes it, without pydantic's union tags, and the fields of the section it lies in."""
    path: list[str] = []
    around: type[Section] = Config
    candidates: list[type[Section]] = [Config]
    for part in loc:
        if len(candidates) > 1 and (tagged := [c for c in candidates if part in _tags(c)]):
            candidates = tagged
            continue
        path.append(str(part))
        if isinstance(part, str) and candidates:  # below a field with no section, keys are the user's own
            around = candidates[0]
            candidates = _sections(around.model_fields[part].annotation) if part in around.model_fields else []
    return path, sorted(around.model_fields)


def _tags(section: type[Section]) -> tuple[str, ...]:
    return tuple(
        t for f in ("kind", "name") if f in section.model_fields for t in get_args(section.model_fields[f].annotation)
    )


def _sections(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [s for arg in getattr(annotation, "__args__", ()) for s in _sections(arg)]
