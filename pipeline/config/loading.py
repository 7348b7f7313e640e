"""What a user wrote -> `Config`, and back: YAML files and dotted overrides.

Invariant: unknown keys, wrong types and contradictions end in one `Failure` line that names the file or field, the
value and what would be accepted.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from pipeline.config.domains import DOMAINS, domain_tree
from pipeline.config.root import Config, domain_defaults
from pipeline.config.section import TAGS, Registry, Section, over
from pipeline.records import Failure

RENAMED = {
    "proposer_pool": "proposer.pool",
    "teacher.kind=mini": "teacher.kind=scripted",
}
"""Fields (and values) of earlier configs, and what they are called now."""


class NotYAML(ValueError):
    """Says what is wrong; `where` is ":line:column" if that is known, else empty."""

    def __init__(self, what: str, where: str = ""):
        super().__init__(what)
        self.where = where


class _Loader(yaml.SafeLoader):
    """Refuses a key that a mapping has twice, of which YAML would keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} twice", key.start_mark)
                seen.add((key.tag, key.value))
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def parse(text: str) -> Any:
    """YAML -> plain values. Raises NotYAML."""
    try:
        return yaml.load(text, _Loader)  # a safe one
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise NotYAML(getattr(e, "problem", None) or "syntax error", where) from None
    except (ValueError, LookupError, AttributeError, RecursionError) as e:
        # What has the form of a date, or a tag, is made one, by constructors that take their text on trust.
        raise NotYAML(f"a value that cannot be: {e}") from None


def load(path: Path | None = None, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """Read a YAML file (None: the mini world) and apply dotted overrides `a.b.c=value` (value is YAML).

    Raises Failure with one line for an unreadable file, broken YAML, or the first invalid field.
    """
    tree: dict[str, Any] = {"domain": "mini"}
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
    if "domain" in tree:
        tree["domain"] = domain_tree(tree["domain"])
    for override in sorted(overrides, key=lambda o: not o.startswith("domain")):  # its defaults are what others change
        _apply(tree, override)
    return validate(tree, source=str(path) if path else "config")


def validate(tree: dict[str, Any], source: str = "config") -> Config:
    """A mapping -> Config. Raises Failure naming the first invalid field, its value and what is accepted."""
    try:
        return Config.model_validate(tree)
    except ValidationError as e:
        first, *others = e.errors()
        # Without a domain there are no defaults, so that much else is missing too.
        more = f" (and {len(others)} more)" if others and first["loc"][0] != "domain" else ""
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
    except NotYAML as e:
        raise Failure(f"--set {key}: {text!r} is not a YAML value ({e})") from None
    *parents, leaf = key.strip().split(".")
    node: Any = tree
    default: Any = _defaults(tree)
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


def _defaults(tree: dict[str, Any]) -> dict[str, Any]:
    """What a config with this domain has where nothing is said, as plain values."""
    domain = domain_defaults(domain_tree(tree.get("domain")))  # an override may have put a name there
    own = _own_defaults(Config)
    return own | {k: over(own.get(k), v) for k, v in domain.items()}


def _own_defaults(section: type[Section]) -> dict[str, Any]:
    found = {}
    for name, field in section.model_fields.items():
        if not field.is_required():
            found[name] = to_jsonable_python(field.default)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found[name] = _own_defaults(field.annotation)
    return found


def _explain(error: Any) -> str:
    """One line of a pydantic error: field, value, what would be accepted."""
    path, around = _locate(error["loc"])
    where = ".".join(path) or "config"
    if error["type"] == "extra_forbidden":
        if where in RENAMED:
            return f"{where}: is called {RENAMED[where]} now"
        return f"{where}: unknown field; accepted here: {', '.join(sorted(around.model_fields))}"
    if error["type"] == "union_tag_invalid":
        context = error["ctx"]
        field = f"{where}.{context['discriminator'][1:-1]}"
        renamed = RENAMED.get(f"{field}={context['tag']}")
        return f"{field}: expected {context['expected_tags']} (got {context['tag']!r})" + (
            f"; {context['tag']!r} is called {renamed.partition('=')[2]!r} now" if renamed else ""
        )
    if error["type"] == "union_tag_not_found":
        tag = error["ctx"]["discriminator"][1:-1]
        field = next(part for part in reversed(path) if not part.isdigit())
        kinds = [repr(section.model_fields[tag].default) for section in _sections_of(around.model_fields[field])]
        return f"{where}.{tag}: required. Expected one of {', '.join(kinds)}"
    if error["type"] == "missing":
        return f"{where}: required. {_meaning(around, path[-1])}"
    message = error["msg"].removeprefix("Value error, ")
    shown = "" if error["type"] == "value_error" else f" (got {error['input']!r})"
    return f"{where}: {message[0].lower()}{message[1:]}{shown}"


def _meaning(section: type[Section], name: str) -> str:
    """What a field is for, in one line."""
    if section is Config and name == "domain":
        return f"Expected {' or '.join(DOMAINS.sections)} ({section.model_fields[name].description})"
    return " ".join((section.model_fields[name].description or "").split())


def _locate(loc: tuple[Any, ...]) -> tuple[list[str], type[Section]]:
    """The path as the user writes it, without pydantic's union tags, and the section that it lies in."""
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
            candidates = _sections_of(around.model_fields[part]) if part in around.model_fields else []
    return path, around


def _tags(section: type[Section]) -> tuple[str, ...]:
    return tuple(t for f in TAGS if f in section.model_fields for t in get_args(section.model_fields[f].annotation))


def _sections_of(field: FieldInfo) -> list[type[Section]]:
    return _registered(field.metadata) or _sections(field.annotation)


def _sections(annotation: Any) -> list[type[Section]]:
    if get_origin(annotation) is Annotated and (found := _registered(annotation.__metadata__)):
        return found
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [s for arg in get_args(annotation) for s in _sections(arg)]


def _registered(metadata: Any) -> list[type[Section]]:
    return [section for m in metadata if isinstance(m, Registry) for section in m.sections.values()]
