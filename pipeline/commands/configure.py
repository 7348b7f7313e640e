"""`propose config`: a config shown, explained, compared, begun.

Invariant: a file that is there is never overwritten.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from pipeline.commands import target
from pipeline.commands.tables import columns
from pipeline.config import Config, loading, reference
from pipeline.records import Failure
from pipeline.store.identity import differences

_TEMPLATES = Path(__file__).parents[1] / "config" / "starts"
STARTS = tuple(sorted(path.stem for path in _TEMPLATES.glob("*.yaml")))
"""Profiles that a config can begin with; that of a domain as a whole is called like it."""
_SCHEMA = "# yaml-language-server: $schema={}\n"


def show(
    names: Sequence[str],
    file: Path | None,
    sets: Sequence[str],
    run_dir: str | None,
    docs: bool,
    schema: bool,
    markdown: bool,
    as_json: bool,
) -> str:
    """What `propose config show` prints, without the last newline. Raises Failure for a field that is none, and for
    options that do not go together."""
    wanted = [name for name, on in (("--docs", docs), ("--schema", schema), ("--markdown", markdown)) if on]
    if len(wanted) > 1:
        raise Failure(f"{' and '.join(wanted)}: expected one of them")
    if schema or markdown:
        if names or file or sets or run_dir or as_json:
            raise Failure(f"{wanted[0]}: tells of every config; expected no config, field or other option beside it")
        return json.dumps(reference.schema(), indent=1) if schema else reference.page().rstrip("\n")
    if docs and as_json:
        raise Failure("--docs: is for reading; --schema is the same as JSON")
    place, fields = (names[0], names[1:]) if names and _is_place(names[0]) else (None, names)
    config, _ = target.of(place, file, sets, run_dir)
    tree = config.model_dump(mode="json")
    for field in fields:
        _value(tree, field)
    if docs:
        return _docs(tree, fields)
    if not fields:
        return json.dumps(tree) if as_json else loading.dump(config).rstrip("\n")
    found = {field: _value(tree, field) for field in fields}
    if as_json:
        return json.dumps(found)
    nested: dict[str, Any] = {}
    for field, value in found.items():
        node = nested
        *parents, leaf = field.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return yaml.safe_dump(nested, sort_keys=False, allow_unicode=True).rstrip("\n")


def _is_place(name: str) -> bool:
    if name in Config.model_fields:  # `sandbox` is a folder of the checkout too
        return False
    return os.path.exists(name) or os.path.exists(target.RUNS / name) or name.endswith((".yaml", ".yml")) or "/" in name


def _value(tree: Any, field: str) -> Any:
    """What a resolved config has at a dotted field. Raises Failure for a field that is none."""
    node, where = tree, "config"
    for part in field.split("."):
        if isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, dict) and part in node:
            node = node[part]
        else:
            there = (
                [*node] if isinstance(node, dict) else [*map(str, range(len(node)))] if isinstance(node, list) else []
            )
            near = get_close_matches(part, there, n=1) or (_elsewhere(tree, part) if node is tree else [])
            mean = f"; did you mean {near[0]}?" if near else ""
            raise Failure(f"{field}: no field {part!r} in {where}{mean}; expected one of {', '.join(there) or 'none'}")
        where = part
    return node


def _elsewhere(tree: dict[str, Any], name: str) -> list[str]:
    """Where a field is that has this name, or one like it: the place nearest to the root."""
    level = list(tree.items())
    while level:
        last = {path.rpartition(".")[2]: path for path, _ in reversed(level)}
        if near := get_close_matches(name, last, n=1, cutoff=0.8):
            return [last[near[0]]]
        inner = [(path, value) for path, value in level if isinstance(value, dict)]
        level = [(f"{path}.{key}", below) for path, value in inner for key, below in value.items()]
    return []


def _docs(tree: dict[str, Any], fields: Sequence[str]) -> str:
    """What the fields of sections mean, with the values of the config."""
    parts = []
    for field in fields or [""]:
        sections = reference.at(field) if field else list(reference.places())
        if not sections:  # a field that holds a value
            section, _, name = field.rpartition(".")
            of = [s for place, s in reference.at(section) if place == _numbered(section)] if section else [Config]
            parts += [_setting(field, s, _value(tree, field)) for s in reference.settings(of[0]) if s.name == name]
        for place, kind in sections:
            parts += [
                _setting(f"{place}.{s.name}".lstrip("."), s, _there(tree, place, s.name))
                for s in reference.settings(kind)
                if not s.type.startswith("section ")
            ]
    return "\n".join(parts)


def _numbered(path: str) -> str:
    return ".".join("N" if part.isdigit() else part for part in path.split("."))


def _there(tree: Any, place: str, name: str) -> Any:
    for part in [*filter(None, place.split(".")), name]:
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _setting(path: str, s: reference.Setting, value: Any) -> str:
    unit = f" ({s.unit})" if s.unit else ""
    known = f"now {json.dumps(value)} · " if value is not None and not isinstance(value, dict | list) else ""
    lines = [f"{path}: {s.type}{unit}", f"    {known}default {s.default} (source: {s.source})"]
    return "\n".join([*lines, *([f"    {s.meaning}"] if s.meaning else [])])


# ---------------------------------------------------------------- diff and init


def diff(a: str, b: str) -> dict[str, Any]:
    """The keys are `keys.DIFF_KEYS`."""
    first, second = (target.of(name, None, None, None)[0].model_dump(mode="json") for name in (a, b))
    found = [{"field": field, "a": was, "b": now} for field, was, now in differences(first, second)]
    return {"differences": found}


def render_diff(found: dict[str, Any]) -> str:
    rows = [(d["field"], _cell(d["a"]), _cell(d["b"])) for d in found["differences"]]
    return columns([("field", "a", "b"), *rows]) if rows else "no field differs"


def _cell(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def init(file: Path, profile: str) -> dict[str, Any]:
    """Write a profile, with its comments, to begin with, and the schema that editors check it by, beside it. Raises
    Failure where a file is there already."""
    schema = file.with_name("propose.schema.json")
    if file.exists():
        raise Failure(f"{file}: is there already; expected a new file")
    text = (_TEMPLATES / f"{profile}.yaml").read_text(encoding="utf-8")
    name = f"\nname: {profile}"
    text = text.replace(name, f"\nname: {file.stem}".ljust(len(name)), 1)  # the comments stay in a column
    text = text.replace(f"deploy/configs/{profile}.yaml", str(file))
    try:
        schema.write_text(json.dumps(reference.schema(), indent=1) + "\n", encoding="utf-8")
        file.write_text(_SCHEMA.format(schema.name) + text, encoding="utf-8")
    except OSError as e:
        raise Failure(f"{file}: {e.strerror}; expected a folder this user may write to") from None
    return {"path": str(file), "schema": str(schema), "domain": yaml.safe_load(text)["domain"], "profile": profile}
