"""What a config accepts, in our words: errors, all of them, and the reference and schema made of the same sections."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.commands import configure
from pipeline.config import DOMAINS, Config, Section, loading, reference, words
from pipeline.config.loading import load
from pipeline.records import Failure
from tests.pipeline.test_cli import propose, refused, told

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "deploy" / "configs").glob("*.yaml"))


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def errors(*overrides, tree=None):
    with pytest.raises(Failure) as caught:
        loading.validate(tree) if tree else load(None, overrides)
    return str(caught.value).splitlines()


def test_all_errors_are_listed_each_with_field_value_and_what_is_accepted():
    head, *lines = errors(
        "mgpo.steps=many", "mgpo.stepz=1", "trainer.betas=[0.5]", "evaluate=3", "acquire.on_bad_record=skp",
        "prober.k=99", "proposer.engine.weight_transport=nccl", "committee.required=9", "committee.quorum=9", "seed",
    )  # fmt: skip
    assert head == "config: 10 errors"
    assert [line.split(":")[0].strip() for line in lines if "--set" in line] == ["--set 'seed'"]
    text = "\n".join(lines)
    assert "mgpo.steps: expected a whole number of at least 1 (got 'many')" in text
    assert "mgpo.stepz: unknown field; did you mean steps?" in text
    assert "trainer.betas: expected a list of 2" in text
    assert "evaluate: expected a section with some of benchmark" in text
    assert "acquire.on_bad_record: expected one of 'stop', 'skip' (got 'skp'); did you mean skip?" in text
    assert "prober: k (99) must be below n (16)" in text, "a contradiction that the other errors hide"
    assert "proposer.engine.weight_transport nccl" in text, "one of the whole"
    assert "committee: required (9)" in text and "committee: quorum (9)" in text, "two of one section"


def test_one_error_is_one_line(tmp_path):
    assert errors("mgpo.steps=0") == ["config: mgpo.steps: expected a whole number of at least 1 (got 0)"]
    (tmp_path / "c.yaml").write_text("domain: mini\nmgpo: {lr: -1}\n")
    with pytest.raises(Failure, match=r"^c\.yaml: mgpo\.lr: expected a number above 0 \(got -1\)$"):
        load(Path("c.yaml"))


def leaves(section, where=""):
    for name, field in section.model_fields.items():
        inner = list(words.sections_of(*words.of_field(field)))
        if not inner:
            yield f"{where}{name}"
        elif len(inner) == 1 and "tuple" not in str(field.annotation) and "None" not in str(field.annotation):
            yield from leaves(inner[0], f"{where}{name}.")


JARGON = re.compile(
    r"instance|valid (tuple|dict|list|int|string|bool)|Input should|pydantic|dictionary|\bdict\b|None\b"
)


@given(
    field=st.sampled_from(sorted(leaves(Config))), value=st.sampled_from(["{a: {b: 1}}", "[[1]]", "[{}]", "!!set {}"])
)
def test_no_error_speaks_python(field, value):
    """Whatever is put where it does not belong, the line names the field and says what does."""
    try:
        load(None, [f"{field}={value}"])
    except Failure as e:
        line = str(e).splitlines()[0]
        assert field.rpartition(".")[2] in str(e) and not JARGON.search(str(e)), line


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("mgpo.curriculum.alpha", "a number of at least 0 and at most 1"),
        ("mgpo.objective.importance_cap", "a number above 0 or null"),
        ("evaluate.problems", "a whole number of at least 1 or null"),
        ("trainer.use_gpu", "true or false"),
        ("acquire.corpus", "a list of at least 1, each text or a section with some of path, license, source, fields"),
        ("proposer.pool.resources", "a mapping of names, each to a number"),
    ],
)
def test_what_a_field_accepts(field, said):
    kind = (Config, ())
    for part in field.split("."):
        kind = words.below(kind, part)
    assert words.accepted(*kind) == said


def test_a_section_of_a_registry_is_one_of_its_kinds():
    said = words.accepted(*words.below((Config, ()), "domain"))
    assert said.startswith("a section with kind 'mini'") and all(f"'{kind}'" in said for kind in DOMAINS.sections)


# ---------------------------------------------------------------- the reference


def test_the_page_in_the_docs_is_the_one_that_is_made():
    assert (ROOT / "deploy" / "CONFIG.md").read_text(encoding="utf-8") == reference.page(), (
        "made again by `propose config show --markdown > deploy/CONFIG.md`"
    )


def test_every_field_says_what_it_means():
    silent = [
        f"{reference.title(s)}.{setting.name}"
        for _, s in reference.places()
        for setting in reference.settings(s)
        if not setting.meaning and setting.name not in ("kind", "name")
    ]
    assert sorted(set(silent)) == []


def test_every_section_and_field_is_in_the_page():
    page = reference.page()
    for _, section in reference.places():
        assert f"## {reference.title(section)}\n" in page
        assert all(f"| `{name}` |" in page for name in section.model_fields)


def test_docs_tell_the_values_of_a_config(capsys, tmp_path):
    (tmp_path / "c.yaml").write_text("domain: mini\nmgpo: {steps: 7}\n")
    code, out, _ = propose(capsys, "config", "show", "c.yaml", "mgpo", "--docs")
    assert code == 0
    assert "mgpo.steps: a whole number of at least 1\n    now 7 · default 200" in out
    assert "mgpo.curriculum.alpha" in out and "solve" not in out.replace("resolve", "")
    one = propose(capsys, "config", "show", "mgpo.curriculum.alpha", "--docs")[1]
    assert one.startswith("mgpo.curriculum.alpha: ") and "the paper leaves it open" in one


def test_sections_are_shown_as_yaml_that_can_be_used(capsys):
    code, out, _ = propose(capsys, "config", "show", "mgpo.curriculum", "seed")
    whole = load().model_dump(mode="json")
    assert code == 0 and yaml.safe_load(out) == {"mgpo": {"curriculum": whole["mgpo"]["curriculum"]}, "seed": 0}
    assert told(capsys, "config", "show", "prober.ladder.0.path") == {"prober.ladder.0.path": "mini:solver"}


def test_options_of_show_that_do_not_go_together(capsys):
    assert "expected one of them" in refused(capsys, "config", "show", "--docs", "--schema")
    assert "--schema" in refused(capsys, "config", "show", "--schema", "--set", "seed=1")


# ---------------------------------------------------------------- the schema


@pytest.fixture(scope="module")
def schema():
    found = reference.schema()
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_the_schema_takes_what_we_take(schema, path):
    schema.validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    schema.validate(load(path).model_dump(mode="json"))


@pytest.mark.parametrize(
    "tree",
    [{"mgpo": {"stepz": 1}}, {"mgpo": {"steps": 0}}, {"teacher": {"kind": "opnai"}}, {"domain": "mni"}, {"seed": "x"}],
)
def test_the_schema_refuses_what_we_refuse(schema, tree):
    tree = {"domain": "mini"} | tree
    assert not schema.is_valid(tree)
    with pytest.raises(Failure):
        loading.validate(tree)


def test_a_domain_is_required(schema):
    assert not schema.is_valid({"seed": 1}) and schema.is_valid({"domain": "text"})


# ---------------------------------------------------------------- diff and init


def test_diff_names_the_fields_that_differ(capsys, tmp_path):
    (tmp_path / "a.yaml").write_text("domain: mini\n")
    (tmp_path / "b.yaml").write_text("domain: mini\nmgpo: {steps: 7}\nseed: 3\n")
    assert told(capsys, "config", "diff", "a.yaml", "b.yaml") == {
        "differences": [{"field": "seed", "a": 0, "b": 3}, {"field": "mgpo.steps", "a": 12, "b": 7}]
    }
    assert propose(capsys, "config", "diff", "a.yaml", "a.yaml")[1] == "no field differs\n"


STARTS = [("--profile", name) for name in configure.STARTS] + [("--domain", "mini"), ("--domain", "text")]


@pytest.mark.parametrize("start", STARTS, ids=lambda start: start[1])
def test_init_begins_a_config_that_validates_and_never_overwrites(capsys, tmp_path, start):
    assert propose(capsys, "config", "init", "mine.yaml", *start)[0] == 0
    text = (tmp_path / "mine.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=propose.schema.json\n")
    assert json.loads((tmp_path / "propose.schema.json").read_text()) == reference.schema()
    assert "deploy/configs/" not in text  # its commands are for this file
    profile = load(ROOT / "deploy" / "configs" / f"{start[1]}.yaml").model_dump()
    assert load(tmp_path / "mine.yaml").model_dump() == profile | {"name": "mine"}
    assert "mine.yaml: is there already" in refused(capsys, "config", "init", "mine.yaml")
    assert (tmp_path / "mine.yaml").read_text() == text


def test_every_profile_can_be_begun_with():
    assert sorted(configure.STARTS) == sorted(path.stem for path in CONFIGS)


def test_a_section_that_exists_is_consistent():
    class Pair(Section):
        low: int = 0
        high: int = 1

        def contradictions(self):
            if self.low > self.high:
                yield f"low ({self.low}) must not exceed high ({self.high})"
            if self.low < 0:
                yield "low is below 0"

    with pytest.raises(ValueError, match=r"low \(-1\) must.*\n.*low is below 0"):
        Pair(low=-1, high=-2)
    assert Pair(low=1).high == 1
