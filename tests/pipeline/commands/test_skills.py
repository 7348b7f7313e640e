"""`propose skills` as a user calls it, on libraries made here; without scripts where the sandbox is not the point."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.commands import keys
from pipeline.skills import candidates, table
from pipeline.skills.extraction import SkillLibrary, render
from tests.pipeline.domains.mini.test_skills import skill
from tests.pipeline.skills.test_lint import GOOD
from tests.pipeline.test_cli import propose, refused

BARE = [one.model_copy(update={"script": None}) for one in GOOD]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    SkillLibrary(BARE[:3]).save(tmp_path / "mine", sealed=False)
    return tmp_path / "mine"


def asked(capsys, *words):
    code, out, err = propose(capsys, *words, "--json")
    assert out, err
    return code, json.loads(out)


def test_list_show_and_stats_tell_what_is_there(capsys, library):
    code, found = asked(capsys, "skills", "list", library)
    assert code == 0 and set(found) == set(keys.SKILLS_LIST_KEYS)
    assert [row["id"] for row in found["skills"]] == ["digit_sum", "half_life", "square_root"]
    assert {row["version"] for row in found["skills"]} == {table.version(one) for one in BARE[:3]}
    _, maths = asked(capsys, "skills", "list", library, "--category", "maths")
    assert [row["id"] for row in maths["skills"]] == ["digit_sum", "square_root"]
    assert "expected one of maths, physics" in refused(capsys, "skills", "list", library, "--category", "law")
    code, shown = asked(capsys, "skills", "show", library / table.TABLE, "half_life")
    assert set(shown) == set(keys.SKILLS_SHOW_KEYS) and shown["intent"] == BARE[2].intent
    assert propose(capsys, "skills", "show", library, "half_life")[1] == render(BARE[2])
    _, counts = asked(capsys, "skills", "stats", library)
    assert set(counts) == set(keys.SKILLS_STATS_KEYS) and counts["categories"] == {"maths": 2, "physics": 1}


def test_what_is_added_has_passed_its_self_test(capsys, tmp_path):
    new = tmp_path / "new"
    SkillLibrary(GOOD[:2]).save(new, sealed=False)
    own = tmp_path / "own"
    code, found = asked(capsys, "skills", "add", own, new / "digit_sum", new / "square_root" / "SKILL.md")
    assert code == 0 and set(found) == set(keys.SKILLS_ADD_KEYS) and found["skills"] == 2
    assert list(SkillLibrary.load(own)) == GOOD[:2] and found["version"] == SkillLibrary(GOOD[:2]).version
    wrong = new / "digit_sum" / "script.py"
    wrong.write_text(wrong.read_text().replace("    6\n", "    8\n"))
    assert "Expected: / 8 / Got: / 6" in refused(capsys, "skills", "add", own, new / "digit_sum", "--replace")
    assert list(SkillLibrary.load(own)) == GOOD[:2]


def test_the_same_skill_is_added_in_place_of_the_old_one_or_not_at_all(capsys, library, tmp_path):
    other = BARE[0].model_copy(update={"id": "sum_of_digits", "score": 0.4})
    SkillLibrary([other]).save(tmp_path / "other", sealed=False)
    said = refused(capsys, "skills", "add", library, tmp_path / "other")
    assert "sum_of_digits" in said and "as digit_sum; --replace" in said
    _, found = asked(capsys, "skills", "add", library, tmp_path / "other", "--replace")
    assert (found["replaced"], found["skills"]) == (["digit_sum"], 3)
    assert sorted(p.name for p in library.iterdir()) == ["half_life", "skills.parquet", "square_root", "sum_of_digits"]


def test_remove_takes_the_folder_and_the_row(capsys, library):
    code, found = asked(capsys, "skills", "remove", library, "half_life", "digit_sum")
    assert code == 0 and set(found) == set(keys.SKILLS_REMOVE_KEYS) and found["removed"] == ["digit_sum", "half_life"]
    assert (
        [s.id for s in SkillLibrary.load(library)]
        == [s.id for s in table.read(library / table.TABLE)]
        == ["square_root"]
    )
    assert "no skill 'half_life'" in refused(capsys, "skills", "remove", library, "half_life")
    assert "no skill would be left" in refused(capsys, "skills", "remove", library, "square_root")


def test_merge_keeps_the_best_of_each_and_two_of_one_name(capsys, library, tmp_path):
    spread = skill(id="half_life", intent="how long a game takes with two breaks", method="A match.\n\nSum the parts.")
    again = BARE[0].model_copy(update={"id": "digits_sum", "score": 0.95})
    SkillLibrary([spread, again]).save(tmp_path / "other", sealed=False)
    code, found = asked(capsys, "skills", "merge", tmp_path / "out", library, tmp_path / "other")
    assert code == 0 and set(found) == set(keys.SKILLS_MERGE_KEYS)
    assert (found["read"], found["skills"], found["renamed"]) == (5, 4, ["half_life_2"])
    assert found["same"] == {"digits_sum": ["digit_sum"]}
    merged = SkillLibrary.load(tmp_path / "out")
    assert merged.version == found["version"] and merged["digits_sum"].score == 0.95
    assert "new or empty" in refused(capsys, "skills", "merge", tmp_path / "out", library)


def test_a_runs_library_is_read_and_never_changed(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "one"
    SkillLibrary(BARE).save(run / "skills")
    (run / "config.yaml").write_text("domain: mini\n")
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert asked(capsys, "skills", "list", "one")[1]["version"] == SkillLibrary(BARE).version
    for place in (run, run / "skills"):
        said = refused(capsys, "skills", "remove", place, "half_life")
        assert "`propose skills merge OUT" in said
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before
    asked(capsys, "skills", "merge", "mine", run)
    document = tmp_path / "mine" / "half_life" / "SKILL.md"
    document.write_text(document.read_text().replace("is left", "remains"))
    assert SkillLibrary.load(tmp_path / "mine")["half_life"].intent.endswith("remains")


def test_lint_exits_with_2_where_it_finds_anything(capsys, library):
    code, found = asked(capsys, "skills", "lint", library)
    assert code == 2 and set(found) == set(keys.SKILLS_LINT_KEYS)
    assert [f["what"] for f in found["findings"]] == ["'physics' has one skill, and a task takes two of a category"]
    SkillLibrary(BARE).save(library, sealed=False)
    code, out, _ = propose(capsys, "skills", "lint", library)
    assert (code, out) == (0, "0 findings\n")


def test_a_version_follows_the_content_and_nothing_else():
    one = GOOD[0]
    assert table.version(one) == table.version(one.model_copy(update={"score": 0.1, "source": "b.md"}))
    for field in ("id", "category", "intent", "method", "difficulty", "tool_hint", "script"):
        assert table.version(one) != table.version(one.model_copy(update={field: "another"}))
    assert SkillLibrary(GOOD).version == SkillLibrary(reversed(GOOD)).version != SkillLibrary(GOOD[1:]).version


def test_what_is_added_brings_its_own_provenance_once_and_no_other(capsys, tmp_path):
    given, own = tmp_path / "given", tmp_path / "own"
    about = {"proposed_score": 1, "path": "a.md", "origin": None, "license": "mit"}
    rows = [candidates.Candidate(skill=one, of=one.id, **about) for one in BARE[:3]]
    SkillLibrary(BARE[:3]).save(given, sealed=False, candidates=candidates.written(rows))
    other = BARE[2].model_copy(update={"intent": "something else altogether, of one's own"})
    SkillLibrary([other]).save(own, sealed=False)
    code, _ = asked(capsys, "skills", "add", own, given / BARE[0].id, given / BARE[1].id)
    assert code == 0 and [row.of for row in candidates.read(own)] == [BARE[0].id, BARE[1].id]


def test_one_added_skill_may_take_the_place_of_two(capsys, tmp_path):
    given, own = tmp_path / "given", tmp_path / "own"
    one = BARE[0]
    SkillLibrary([BARE[1].model_copy(update={"id": one.id}), one.model_copy(update={"id": "its_other_name"})]).save(
        own, sealed=False
    )
    SkillLibrary([one]).save(given, sealed=False)
    code, found = asked(capsys, "skills", "add", own, given, "--replace")
    assert code == 0 and found["replaced"] == sorted([one.id, "its_other_name"]) and found["skills"] == 1
