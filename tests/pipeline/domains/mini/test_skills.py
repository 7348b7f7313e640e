"""Skill documents: what is rendered reads back, what is broken is named, the library survives the disk."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.records import Failure, Skill
from pipeline.skills.extraction import (
    QA_PROMPT,
    TEXT_PROMPT,
    Document,
    SkillLibrary,
    acquisition_messages,
    parse_reply,
    render,
    select,
)

words = st.text("abcdefgh ij:'#-\"éλ{}", min_size=1, max_size=30).map(lambda t: " ".join(t.split())).filter(bool)
prose = words.filter(lambda t: not t.startswith(("#", "-")))


def skill(id: str = "gcd", intent: str = "the greatest common divisor", score: float = 0.9, **more) -> Skill:
    fields = {
        "category": "maths", "method": "Two numbers.\n\nFind the largest divisor.", "difficulty": "Needs factors.",
        "tool_hint": "Run it.", "script": "def gcd(x, a):\n    # ## not a heading\n    return 1\n", "source": "a.md",
    }  # fmt: skip
    return Skill(id=id, intent=intent, score=score, **(fields | more))


@given(
    st.lists(
        st.builds(
            skill,
            id=st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True),
            intent=words,
            score=st.integers(0, 100).map(lambda n: n / 100),
            difficulty=prose,
            tool_hint=prose,
            script=st.sampled_from([None, "def f(x):\n    return x\n"]),
        ),
        min_size=1,
        max_size=4,
    )
)
@settings(deadline=None)
def test_what_is_rendered_reads_back(skills):
    text = "\n".join(render(s) for s in skills)
    assert parse_reply(text, "a.md") == skills


def test_none_means_no_skill():
    assert parse_reply(" NONE\n", "x") == []


GOOD = render(skill())


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        ("I could not find anything.", "no skill document"),
        ("", "no skill document"),
        ("Here you are:\n" + GOOD, "text before the first"),
        (GOOD.replace("score: 0.9", "score: high"), "score is 'high'"),
        (GOOD.replace("score: 0.9", "score: 1.5"), "score is 1.5"),
        (GOOD.replace("score: 0.9\n", ""), "lacks 'score'"),
        (GOOD.replace("name: gcd", "name: ../gcd"), "snake_case"),
        (GOOD.replace("name: gcd", "name: [gcd"), "not YAML"),
        (GOOD.replace("name: gcd", "name: 2024-13-45"), "not YAML"),
        (GOOD.replace("## Effect\nNeeds factors.\n", ""), "'## Effect' is missing"),
        (GOOD.replace("```python\n", "").replace("```", ""), "no ```python block"),
    ],
)
def test_a_malformed_reply_is_named(reply, complaint):
    with pytest.raises(Failure, match=complaint.replace("(", r"\(")) as failure:
        parse_reply(reply, "notes.md:3")
    assert str(failure.value).startswith("notes.md:3") and "\n" not in str(failure.value)


def test_the_two_prompts_carry_the_text_and_forbid_the_problem():
    for kind, phrase in (("qa", "Never repeat the question"), ("text", "apart from this text's own wording")):
        template = {"qa": QA_PROMPT, "text": TEXT_PROMPT}[kind]
        (message,) = acquisition_messages(Document("x", kind, "Body {not a slot}"), template)
        assert message["role"] == "user" and message["content"].endswith("Body {not a slot}")
        assert phrase in message["content"]


# ---------------------------------------------------------------- the library


def test_selection_drops_low_scores_and_keeps_the_best_of_each_skill():
    chosen = select(
        [
            skill(score=0.6, source="first"),
            skill(score=0.8, source="second"),
            skill(id="divisor", intent="The  greatest common DIVISOR", score=0.7),
            skill(id="lcm", intent="the least common multiple", score=0.4),
            skill(id="add", intent="more are added", score=0.5),
        ],
        min_score=0.5,
    )
    assert [(s.id, s.score, s.source) for s in chosen] == [("add", 0.5, "a.md"), ("gcd", 0.8, "second")]


def test_the_library_survives_the_disk(tmp_path):
    one, two = skill(), skill(id="add", intent="more: 'are' added", script=None, source="b.jsonl:3")
    SkillLibrary([one, two, skill(id="old", intent="gone later")]).save(tmp_path)
    SkillLibrary([two, one]).save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["add", "gcd", "manifest.json"]
    loaded = SkillLibrary.load(tmp_path)
    assert list(loaded) == [two, one] and loaded["gcd"] == one and len(loaded) == 2
    assert (tmp_path / "gcd" / "script.py").read_text() == one.script
    assert not (tmp_path / "add" / "script.py").exists()


def test_a_broken_library_names_the_file(tmp_path):
    with pytest.raises(Failure, match="no such folder"):
        SkillLibrary.load(tmp_path / "nowhere")
    with pytest.raises(Failure, match="holds no skill"):
        SkillLibrary.load(tmp_path)
    SkillLibrary([skill()]).save(tmp_path)
    (tmp_path / "gcd" / "SKILL.md").write_text("---\nname: gcd\n---\n")
    with pytest.raises(Failure, match=r"gcd/SKILL\.md: has 18 bytes, \d+ were written"):
        SkillLibrary.load(tmp_path)
    (tmp_path / "manifest.json").unlink()  # as one that was written by hand
    with pytest.raises(Failure, match=r"gcd/SKILL\.md.*lacks 'category'"):
        SkillLibrary.load(tmp_path)
    (tmp_path / "gcd" / "SKILL.md").unlink()
    with pytest.raises(Failure, match=r"gcd/SKILL\.md"):
        SkillLibrary.load(tmp_path)
    with pytest.raises(Failure, match="two skills"):
        SkillLibrary([skill(), skill()])
