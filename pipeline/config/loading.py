"""What a user wrote -> `Config`, and back: YAML files and dotted overrides.

Invariant: unknown keys, wrong types and contradictions end in one `Failure` with a line for each, all of them, that
names the file or field, the value and what would be accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy, deepcopy
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from pipeline.config import words
from pipeline.config.domains import DOMAINS, domain_tree
from pipeline.config.root import Config, domain_defaults
from pipeline.config.section import Section, over
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

    Raises Failure for an unreadable file, broken YAML, or with a line for each override and field that is wrong.
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
            raise Failure(f"config {path}{e.where}: not YAML ({e}); `propose config init FILE` writes one") from None
        if loaded is not None and not isinstance(loaded, dict):
            raise Failure(f"config {path}: top level is {type(loaded).__name__}, expected a mapping of sections")
        tree = loaded or {}
    if "domain" in tree:
        tree["domain"] = domain_tree(tree["domain"])
    wrong = []
    for override in sorted(overrides, key=lambda o: not o.startswith("domain")):  # its defaults are what others change
        try:
            _apply(tree, override)
        except Failure as e:
            wrong.append(str(e))
    return validate(tree, str(path) if path else "config", wrong)


def validate(tree: dict[str, Any], source: str = "config", wrong: Sequence[str] = ()) -> Config:
    """A mapping -> Config. Raises Failure naming each invalid field, its value and what is accepted, after what is
    `wrong` already."""
    lines = [f"{source}: {line}" for line in _errors(tree)]
    found = [*wrong, *lines]
    if len(found) > 1:
        whole = [*wrong, *(line.removeprefix(f"{source}: ") for line in lines)]
        raise Failure("\n  ".join([f"{source}: {len(whole)} errors", *whole]))
    if found:
        raise Failure(found[0])
    return Config.model_validate(tree)


def _errors(tree: dict[str, Any]) -> list[str]:
    """A line for each error. A field that is wrong hides contradictions further up, so it is left out and what remains
    is looked at again."""
    lines: dict[str, None] = {}
    left = deepcopy(tree)
    first = True
    while True:
        try:
            Config.model_validate(left)
            return list(lines)
        except ValidationError as e:
            errors = e.errors()
        if errors[0]["loc"][:1] == ("domain",):
            return _explain(errors[0])  # without a domain there are no defaults, so that much else is missing too
        told = [error for error in errors if first or error["type"] != "missing"]
        told = [error for error in told if not any(_inside(other["loc"], error["loc"]) for other in told)]
        lines |= dict.fromkeys(line for error in told for line in _explain(error))
        if not [error for error in told if _leave_out(left, error["loc"])]:
            return list(lines)
        first = False


def _inside(loc: tuple[Any, ...], around: tuple[Any, ...]) -> bool:
    """An error there is why there is one around it: a list is too short, because of its entries none is right."""
    return len(loc) > len(around) and loc[: len(around)] == around


def _leave_out(tree: dict[str, Any], loc: tuple[Any, ...]) -> bool:
    """Take what lies at an error's place out of the tree, or the nearest mapping's entry around it; whether there was
    anything to take."""
    node: Any = tree
    holder: tuple[dict[Any, Any], Any] | None = None
    for part in loc:
        if isinstance(node, dict) and part in node:
            holder, node = (node, part), node[part]
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
    if holder is None or holder[1] == "domain":
        return False
    del holder[0][holder[1]]
    return True


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
    at: Any = part
    if isinstance(node, list):
        at = _index(node, part, override)
    elif part not in node:
        # A section's fields are filled in later; of a list, all entries but one would be lost.
        node[part] = deepcopy(default) if isinstance(default, list) else {}
    child = node[at] = copy(node[at])  # what YAML calls an alias is one object in several places
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


def _explain(error: Any) -> list[str]:
    """An error of pydantic as lines: field, value, what would be accepted."""
    path, around, kind = _locate(error["loc"])
    where, type_ = ".".join(path) or "config", error["type"]
    if type_ == "value_error":  # our own words, of one contradiction a line
        said = error["msg"].removeprefix("Value error, ").split("\n")
        return [f"{where}: {line[0].lower()}{line[1:]}" if path else line for line in said]
    if type_ == "extra_forbidden":
        if where in RENAMED:
            return [f"{where}: is called {RENAMED[where]} now"]
        fields = sorted(around.model_fields)
        return [f"{where}: unknown field{_meant(path[-1], fields)}; accepted here: {', '.join(fields)}"]
    if type_ == "union_tag_invalid":
        context = error["ctx"]
        field = f"{where}.{context['discriminator'][1:-1]}"
        renamed = RENAMED.get(f"{field}={context['tag']}")
        if renamed:
            more = f"; {context['tag']!r} is called {renamed.partition('=')[2]!r} now"
        else:
            more = _meant(str(context["tag"]), [tag[1:-1] for tag in context["expected_tags"].split(", ")])
        return [f"{field}: expected {context['expected_tags']} (got {context['tag']!r}){more}"]
    if type_ == "union_tag_not_found":
        tag = error["ctx"]["discriminator"][1:-1]
        field = next(part for part in reversed(path) if not part.isdigit())
        sections = words.sections_of(*words.of_field(around.model_fields[field]))
        kinds = [repr(section.model_fields[tag].default) for section in sections]
        return [f"{where}.{tag}: required. Expected one of {', '.join(kinds)}"]
    if type_ == "missing" and path[-1] in around.model_fields:
        return [f"{where}: required. {_meaning(around, path[-1])}"]
    if type_ == "missing":  # an entry of a list of so many
        *path, _ = path
        where, kind = ".".join(path), _locate(error["loc"][:-1])[2]
    if type_ == "invalid_key":
        return [f"{where}: the name of a field is text (got {_shown(error['input'])}); put it in quotes"]
    given = error["input"]
    near = _meant(given, [a for a in get_args(kind[0]) if isinstance(a, str)]) if isinstance(given, str) else ""
    accepted = words.accepted(*kind)
    if type_ == "finite_number":
        accepted = accepted.replace("number", "finite number")
    return [f"{where}: expected {accepted} (got {_shown(given)}){near}"]


def _shown(value: Any) -> str:
    """A value as the user wrote it, if it is short."""
    text = repr(value) if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True, width=10**6)
    text = text.removesuffix("\n").removesuffix("\n...")
    return text if len(text) <= 80 else f"{text[:77]}..."


def _meant(name: str, names: Sequence[str]) -> str:
    near = get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _meaning(section: type[Section], name: str) -> str:
    """What a field is for, in one line."""
    if section is Config and name == "domain":
        return f"Expected {' or '.join(DOMAINS.sections)} ({section.model_fields[name].description})"
    field = section.model_fields[name]
    return " ".join((field.description or f"Expected {words.accepted(*words.of_field(field))}").split())


def _locate(loc: tuple[Any, ...]) -> tuple[list[str], type[Section], words.Kind]:
    """The path as the user writes it, without pydantic's union tags, the section that it lies in, and what belongs
    there."""
    path: list[str] = []
    around: type[Section] = Config
    kind: words.Kind = (Config, ())
    for part in loc:
        sections = list(words.sections_of(*kind))
        if len(sections) > 1 and (tagged := [s for s in sections if part in words.tags(s)]):
            kind = (tagged[0], ())
            continue
        path.append(str(part))
        if isinstance(part, str) and sections:  # below a field with no section, keys are the user's own
            around = next((s for s in sections if part in s.model_fields), sections[0])
        kind = words.below(kind, part) or kind
    return path, around, kind
