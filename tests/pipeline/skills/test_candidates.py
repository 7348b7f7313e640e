"""Candidates: each has an end that its row tells; categories are placed, never lost; the rubric is read as written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.records import Skill
from pipeline.skills import candidates, rubric
from pipeline.skills.candidates import Candidate, placed, refuse, settle, spelled, weights
from pipeline.skills.extraction import SkillLibrary
from tests.pipeline.domains.mini.test_skills import skill
from tests.pipeline.skills.test_sameness import ALL, ONE, TWO


def proposed(of: Skill, score: float = 0.9, path: str = "a.md") -> Candidate:
    scored = of.model_copy(update={"score": score})
    return Candidate(skill=scored, proposed_score=score, path=path, origin=None, license="mit")


def test_what_became_of_each_candidate() -> None:
    gcd, again = ONE["initials"]
    spread, flight = TWO["the range of data and of a projectile"]
    given = [proposed(gcd, 0.4), proposed(again, 0.8), proposed(spread, 0.9), proposed(flight, 0.7),
             proposed(skill(id="low"), 0.3), proposed(skill(id="low"), 0.1),
             proposed(skill(id="copy")).rejected("example", "repeats it")]  # fmt: skip
    kept, found = settle(given, 0.5)
    assert [s.id for s in kept] == ["greatest_common_divisor", "range", "range_2"]
    assert [(c.outcome, c.of, c.cause) for c in found] == [
        ("merged", "greatest_common_divisor", None), ("kept", "greatest_common_divisor", None),
        ("kept", "range", None), ("kept", "range_2", None),
        ("rejected", None, "low score"), ("rejected", None, "low score"), ("rejected", None, "example"),
    ]  # fmt: skip
    assert found[4].reason == "scored 0.30, below acquire.min_score (0.5)"
    assert weights(found) == {"greatest_common_divisor": 0.5, "range": 0.25, "range_2": 0.25}
    kept, after = settle(refuse(given, {1: "it raises"}), 0.3)
    assert [s.id for s in kept] == ["gcd", "low", "range", "range_2"]  # another proposal takes its place
    assert [(c.outcome, c.of, c.cause, c.reason) for c in after[:2]] == [
        ("kept", "gcd", None, ""), ("rejected", None, "script", "it raises"),
    ]  # fmt: skip
    assert sum(weights(after).values()) == 1


def test_one_skill_in_two_spellings_of_a_category_is_one() -> None:
    given = [
        proposed(skill(id="euclid", category="math")),
        proposed(skill(id="shared_factor", category="maths", method="Prime powers.\n\nTake the least of each.")),
    ]
    assert len(settle(given, 0.5)[0]) == 2
    into = spelled(["math", "maths"], ["maths"], {})
    assert into == {"math": "maths", "maths": "maths"} and len(settle(given, 0.5, into)[0]) == 1


@given(st.lists(st.tuples(st.sampled_from(ALL), st.integers(0, 4)), max_size=10))
@settings(max_examples=25, deadline=None)
def test_no_candidate_is_lost(drawn: list[tuple[Skill, int]]) -> None:
    given_ = [proposed(one, score / 4) for one, score in drawn]
    kept, found = settle(given_, 0.5)
    assert [c.skill for c in found] == [c.skill for c in given_]
    assert sorted(c.of for c in found if c.outcome == "kept" and c.of) == [s.id for s in kept]
    assert all((c.of in {s.id for s in kept}) != (c.cause is not None) for c in found)
    assert all(s.score >= 0.5 for s in kept)
    assert sum(weights(found).values()) == pytest.approx(1 if kept else 0)


def test_the_table_survives_the_disk(tmp_path: Path) -> None:
    marks = (rubric.Mark(item="reusable", points=0.5, reason="some"),)
    rows = [
        proposed(skill()).model_copy(update={"marks": marks, "of": "gcd"}),
        proposed(skill()).rejected("script", "x"),
    ]
    SkillLibrary([skill()]).save(tmp_path, candidates=candidates.written(rows))
    assert candidates.read(tmp_path) == rows
    assert candidates.read(tmp_path / "gcd") == []


# ---------------------------------------------------------------- categories


def of(*categories: str) -> list[Skill]:
    return [skill(id=f"s{n}", category=category) for n, category in enumerate(categories)]


@pytest.mark.parametrize(
    ("given", "merged", "expected"),
    [
        (["maths", "law", "law"], {}, ["maths", "law", "law"]),
        (["math", "mathematics", "maths/algebra"], {}, ["maths", "maths", "maths"]),
        (["law", "history", "logic"], {}, ["other", "other", "other"]),
        (["algebra", "law", "law"], {"algebra": "maths"}, ["maths", "law", "law"]),
        (["code", "history"], {"code": "maths", "history": "law"}, ["maths", "law"]),
        (["science"], {}, ["science"]),
    ],
)
def test_where_a_category_goes(given: list[str], merged: dict[str, str], expected: list[str]) -> None:
    skills, into = placed(of(*given), ("maths", "code", "science"), merged, 2)
    assert [s.category for s in skills] == expected
    assert into == {a: b for a, b in zip(given, expected, strict=True) if a != b}


def test_categories_of_any_size_stand_where_that_is_asked() -> None:
    skills, into = placed(of("law"), ("maths",), {}, 1)
    assert [s.category for s in skills] == ["law"] and into == {}


# ---------------------------------------------------------------- the rubric

WHOLE = {item: {"reason": f"because of {item}", "points": n + 1} for n, item in enumerate(rubric.ITEMS)}
WRITTEN: dict[str, Callable[[], str]] = {
    "as asked": lambda: json.dumps(WHOLE),
    "a fence and a preamble": lambda: f"Here it is:\n```json\n{json.dumps(WHOLE, indent=1)}\n```",
    "a thought before": lambda: f"<think>{{}}</think>{json.dumps(WHOLE)}",
    "points as text": lambda: json.dumps({k: {**v, "points": f"{v['points']}/4"} for k, v in WHOLE.items()}),
    "score for points": lambda: json.dumps({k: {"Why": v["reason"], "score": v["points"]} for k, v in WHOLE.items()}),
    "flat": lambda: json.dumps(
        {k: v["points"] for k, v in WHOLE.items()} | {f"{k}_reason": v["reason"] for k, v in WHOLE.items()}
    ),
    "pairs": lambda: json.dumps({k: [v["points"], v["reason"]] for k, v in WHOLE.items()}),
    "names with blanks": lambda: json.dumps({k.replace("_", " ").title(): v for k, v in WHOLE.items()}),
    "a comma too many": lambda: json.dumps(WHOLE)[:-1] + ",}",
    "lines": lambda: "\n".join(f"- **{k}**: {v['points']} – {v['reason']}" for k, v in WHOLE.items()),
}


@pytest.mark.parametrize("way", WRITTEN)
def test_marks_are_read_as_models_write_them(way: str) -> None:
    marks = rubric.read(WRITTEN[way]())
    assert not isinstance(marks, str), marks
    assert [(m.item, m.points, m.reason) for m in marks] == [
        (item, (n + 1) / 4, f"because of {item}") for n, item in enumerate(rubric.ITEMS)
    ]
    assert rubric.score(marks) == 0.625


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("", "no item of the rubric"),
        ("A fine skill.", "no item of the rubric"),
        (json.dumps({k: v for k, v in WHOLE.items() if k != "reusable"}), "reusable is missing"),
        (json.dumps(WHOLE | {"reusable": {"reason": "x", "points": 5}}), "points of reusable are '5', expected 0 to 4"),
        (json.dumps(WHOLE | {"reusable": {"reason": "x", "points": "high"}}), "points of reusable are 'high'"),
        (json.dumps(WHOLE | {"reusable": {"reason": "x", "points": True}}), "points of reusable are 'True'"),
        (json.dumps(WHOLE | {"reusable": {"reason": " ", "points": 3}}), "reusable has no reason"),
        (json.dumps(WHOLE | {"reusable": 3}), "reusable has no reason"),
        (rubric.PROMPT, "has no reason"),
    ],
)
def test_what_is_no_mark_is_named(reply: str, said: str) -> None:
    assert said in str(rubric.read(reply))


@given(st.text(max_size=80) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.dictionaries(st.sampled_from([*rubric.ITEMS, "points", "reason"]), inner, max_size=5)
    | st.lists(inner, max_size=3),
    max_leaves=12,
).map(json.dumps))  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_any_reply_is_marks_or_a_fault(reply: str) -> None:
    found = rubric.read(reply)
    if not isinstance(found, str):
        assert [m.item for m in found] == list(rubric.ITEMS) and all(0 <= m.points <= 1 and m.reason for m in found)
