"""The configs that come with the project: all load, and the one for free text needs nothing of the mini world."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import Config
from pipeline.config.loading import load, validate
from pipeline.records import Failure

CONFIGS = Path(__file__).parents[2] / "deploy" / "configs"
SHEETS = (CONFIGS.parent / "PROFILES.md").read_text(encoding="utf-8").split("\n## ")
TEXT = yaml.safe_load((CONFIGS / "text.yaml").read_text(encoding="utf-8"))
REQUIRED = {
    "domain",
    "acquire",
    "acquire.corpus",
    "teacher",
    "teacher.kind",
    "teacher.base_url",
    "teacher.model",
    "proposer",
    "proposer.path",
    "committee",
    "committee.verifiers",
    "committee.verifiers.0.kind",
    "committee.verifiers.0.base_url",
    "committee.verifiers.0.model",
    "committee.verifiers.1.kind",
    "committee.verifiers.1.base_url",
    "committee.verifiers.1.model",
    "committee.verifiers.2.kind",
    "committee.verifiers.2.model",
    "committee.auditor.kind",
    "committee.auditor.model",
    "prober",
    "prober.ladder",
    "prober.ladder.0.path",
    "prober.ladder.1.path",
    "solve",
    "solve.base",
    "solve.base.path",
    "evaluate",
    "evaluate.benchmark",
}
Where = tuple[str | int, ...]


def fields(node: Any, where: Where = ()) -> Iterator[Where]:
    """Every field of a tree; entries of a list are walked into, and are no fields."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(node, dict):
            yield (*where, key)
        if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(v, dict) for v in value)):
            yield from fields(value, (*where, key))


def dotted(path: Where) -> str:
    return ".".join(map(str, path))


def without(tree: dict[str, Any], path: Where) -> dict[str, Any]:
    left = node = deepcopy(tree)
    for key in path[:-1]:
        node = node[key]
    del node[path[-1]]
    return left


def values(node: Any) -> Iterator[Any]:
    if isinstance(node, dict | list):
        for value in node.values() if isinstance(node, dict) else node:
            yield from values(value)
    else:
        yield node


def of_the_mini_world(config: Config) -> list[Any]:
    """Values of the resolved tree that name something of the mini world."""
    named = [value for value in values(config.model_dump(mode="json")) if "mini" in str(value).lower()]
    return named + [v.kind for v in config.committee.verifiers if ".mini." in v.implementation]


@pytest.mark.parametrize("path", sorted(CONFIGS.iterdir()), ids=lambda path: path.name)
def test_every_config_loads(path):
    assert load(path).name == path.stem


@pytest.mark.parametrize("path", sorted(CONFIGS.iterdir()), ids=lambda path: path.name)
def test_every_config_has_a_sheet(path):
    (sheet,) = [text for text in SHEETS[1:] if text.startswith(f"{path.name}\n")]
    assert len(sheet.split()) > 25 and f"| `{path.name}` |" in SHEETS[0]


def test_every_sheet_has_its_config():
    assert {text.partition("\n")[0] for text in SHEETS[1:]} == {path.name for path in CONFIGS.iterdir()}


def lines(node: yaml.Node, where: Where = ()) -> Iterator[tuple[Where, int]]:
    """Every field that holds a value, and the line on which it stands."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = where if key.tag == "tag:yaml.org,2002:merge" else (*where, key.value)
            if isinstance(value, yaml.MappingNode) or _of_sections(value):
                yield from lines(value, inner)
            else:
                yield inner, key.start_mark.line
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from lines(item, (*where, number))


def _of_sections(node: yaml.Node) -> bool:
    return isinstance(node, yaml.SequenceNode) and any(isinstance(item, yaml.MappingNode) for item in node.value)


def at(node: Any, path: Where) -> Any:
    for key in path:
        node = node[key]
    return node


def unexplained(text: str) -> list[str]:
    """Fields of a config that have the value that they would have anyway, and no comment that says why they are there:
    on their line, or on the line of the item of a list that they begin."""
    rows, tree = text.splitlines(), yaml.safe_load(text)
    whole, found = validate(tree).model_dump(mode="json"), []
    for path, line in lines(yaml.compose(text)):
        if "  # " in rows[line] or path in (("domain",), ("name",)):
            continue
        try:
            left = validate(without(tree, path)).model_dump(mode="json")
            same = at(left, path) == at(whole, path)
        except (Failure, LookupError, TypeError):
            continue  # required, or the kind of its section
        if same:
            found.append(dotted(path))
    return found


@pytest.mark.parametrize("path", sorted(CONFIGS.iterdir()), ids=lambda path: path.name)
def test_every_value_is_another_than_the_default_or_says_why(path):
    assert unexplained(path.read_text(encoding="utf-8")) == []


def test_a_value_that_says_nothing_is_found():
    text = (CONFIGS / "quick.yaml").read_text(encoding="utf-8") + "\ntrainer:\n  workers: 1\n  zero_stage: 3\n"
    assert unexplained(text) == ["trainer.workers"]


def test_what_the_mini_world_names_is_found():
    """Else the tests below would find nothing anywhere."""
    assert set(of_the_mini_world(Config(domain="mini"))) >= {"mini", "mini:proposer", "mini:heldout", "symbolic"}


def test_free_text_has_all_that_it_needs():
    config = load(CONFIGS / "text.yaml")
    assert config.domain.kind == "text" and of_the_mini_world(config) == []
    *programs, model = config.committee.verifiers
    assert [v.kind for v in programs] == ["program", "program"] and {v.style for v in programs} == {"python", "sympy"}
    assert model.kind == "model" and len({v.base_url for v in config.committee.verifiers}) == 3
    assert len(config.prober.ladder) == 2


def test_fields_are_walked():
    assert {dotted(path) for path in fields(TEXT)} >= REQUIRED
    assert "committee.verifiers.2.model" in {dotted(path) for path in fields(TEXT)}


@pytest.mark.parametrize("path", list(fields(TEXT)), ids=dotted)
def test_nothing_is_taken_from_the_mini_world_for_a_field_left_out(path):
    """Either it is required, and one line names it and says what to give, or its default is not the mini world's."""
    field, tree = dotted(path), without(TEXT, path)
    if field not in REQUIRED:
        assert of_the_mini_world(validate(tree)) == []
        return
    with pytest.raises(Failure) as caught:
        validate(tree, source="text.yaml")
    line = str(caught.value)
    assert line.startswith(f"text.yaml: {field}: required. ") and "\n" not in line
    assert len(line.partition("required. ")[2]) > 10, "says what to give"


def test_each_line_that_a_user_changes_says_what_it_is():
    """A value that depends on the user's files, models and endpoints has a comment on its line."""
    lines = (CONFIGS / "text.yaml").read_text(encoding="utf-8").splitlines()
    theirs = ("base_url:", " model:", "api_key_env:", "path:", "num_gpus", "max_model_len", "benchmark:", "use_gpu")
    assert [
        line for line in lines if any(name in line.partition("#")[0] for name in theirs) and "  # " not in line
    ] == []
