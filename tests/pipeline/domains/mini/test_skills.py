"""Skill documents: what is rendered reads back, what is broken is named, the library survives the disk."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.records import Failure, Skill
from pipeline.skills.candidates import Candidate, settle
from pipeline.skills.extraction import (
    QA_PROMPT,
    TEXT_PROMPT,
    Document,
    SkillLibrary,
    acquisition_messages,
    render,
    repair_messages,
)
from pipeline.skills.replies import FORM, read


def select(found: list[Skill], min_score: float) -> SkillLibrary:
    """What is kept of candidates that their teacher scored."""
    given_ = [Candidate(skill=s, proposed_score=s.score, path=s.source, origin=None, license=None) for s in found]
    return SkillLibrary(settle(given_, min_score)[0])


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
    found = read(text, "a.md")
    assert (list(found.skills), found.faults) == (skills, ())


GOOD = render(skill())
OTHER = render(skill(id="lcm", intent="the least common multiple"))
BARE = GOOD.partition("## Script")[0]


@pytest.mark.parametrize(
    "reply",
    [" NONE\n", "None.", "**NONE**", "```\nNONE\n```", "NONE, because it is a notice.", "NONE: hours\nand prices.",
     "It teaches nothing.\n\nNONE", "<think>a skill? no</think>NONE"],
)  # fmt: skip
def test_none_means_no_skill(reply):
    found = read(reply, "x")
    assert (found.skills, found.faults) == ((), ())


@pytest.mark.parametrize(
    ("reply", "names"),
    {
        "preamble": ("Here you are:\n\n" + GOOD, ["gcd"]),
        "fence": ("```markdown\n" + GOOD + "```", ["gcd"]),
        "long fence": ("````md\n" + GOOD + "````\nI hope that this helps.", ["gcd"]),
        "fence around each": ("```markdown\n" + GOOD + "```\n\n```markdown\n" + OTHER + "```\n", ["gcd", "lcm"]),
        "tildes": (GOOD.replace("```python", "~~~python").replace("```", "~~~"), ["gcd"]),
        "fenced front matter": ("```yaml\n" + GOOD.replace("0.9\n---", "0.9\n---\n```"), ["gcd"]),
        "front matter in a fence": ("```yaml\n" + GOOD.removeprefix("---\n").replace("0.9\n---", "0.9\n```"), ["gcd"]),
        "rule between": (GOOD + "\n---\n\n" + OTHER, ["gcd", "lcm"]),
        "rule against rule": (GOOD + "---\n" + OTHER, ["gcd", "lcm"]),
        "titles between": ("### Skill 1\n" + GOOD + "\n### Skill 2: lcm\n\n" + OTHER, ["gcd", "lcm"]),
        "titles between without scripts": (BARE + "\n### Skill 2\n" + OTHER, ["gcd", "lcm"]),
        "deeper headings": ((GOOD + OTHER).replace("\n## ", "\n### "), ["gcd", "lcm"]),
        "bold headings": (GOOD.replace("## Action", "**Action**").replace("## Effect\n", "**Effect:** "), ["gcd"]),
        "one-line sections": (GOOD.replace("## Effect\n", "## Effect: "), ["gcd"]),
        "py": (GOOD.replace("```python", "```py"), ["gcd"]),
        "titled fence": (GOOD.replace("```python", '```python title="a.py"'), ["gcd"]),
        "unfenced script": (GOOD.replace("```python\n", "").replace("```", ""), ["gcd"]),
        "thought": ("<think>\n---\nname: x\n---\n</think>\n" + GOOD, ["gcd"]),
        "colons": (GOOD.replace("intent: the", "intent: gcd: the: "), ["gcd"]),
        "CRLF": (GOOD.replace("\n", "\r\n"), ["gcd"]),
        "no opening rule": (GOOD.removeprefix("---\n"), ["gcd"]),
        "no closing rule": (GOOD.replace("0.9\n---", "0.9"), ["gcd"]),
        "bold keys in a list": (GOOD.replace("name: ", "- **name**: ").replace("score: ", "- **score:** "), ["gcd"]),
        "a key more": (GOOD.replace("score: ", "difficulty: hard\nscore: "), ["gcd"]),
        "a name in words": (GOOD.replace("name: gcd", "name: Common Divisor-2"), ["common_divisor_2"]),
        "one bad among good": (GOOD + OTHER.replace("name: lcm", "name: 9") + OTHER, ["gcd", "lcm"]),
    }.values(),
)  # fmt: skip
def test_what_stands_around_a_document_is_passed_over(reply, names):
    found = read(reply, "a.md")
    assert [s.id for s in found.skills] == names
    assert len(found.faults) == ("name: 9" in reply)
    for one in found.skills:  # the body is the document's own, whatever stands around it
        assert (one.method, one.difficulty, one.tool_hint) == (skill().method, "Needs factors.", "Run it.")
        assert one.script in (None, skill().script)
        assert one.intent.endswith(("divisor", "multiple"))


@pytest.mark.parametrize(
    ("written", "score"),
    [('"0.9"', 0.9), ("'0.9'", 0.9), ("90%", 0.9), ("9/10", 0.9), ("0.9 (well supported)", 0.9), ("1", 1.0), ("0", 0.0),
     (".5", 0.5)],
)  # fmt: skip
def test_a_score_is_read_as_it_is_meant(written, score):
    (one,) = read(GOOD.replace("score: 0.9", f"score: {written}"), "x").skills
    assert one.score == pytest.approx(score)


@pytest.mark.parametrize(
    ("written", "intent"),
    [("a: b", "a: b"), ("'a: b'", "a: b"), ('"uses $\\frac{1}{2}$"', "uses $\\frac{1}{2}$"),
     ("count # of x", "count # of x"), (">\n  over two\n  lines", "over two lines"), ("[a] list", "[a] list"),
     ("**bold**", "bold"), ("`f` of x", "`f` of x"), ('"quoted" and more', '"quoted" and more')],
)  # fmt: skip
def test_an_intent_is_the_line_as_it_stands(written, intent):
    (one,) = read(GOOD.replace("intent: the greatest common divisor", f"intent: {written}"), "x").skills
    assert one.intent == intent


@pytest.mark.parametrize("said", ["None", "N/A", "(none)", "None needed.", "No script", "-", "```python\n```"])
def test_a_script_that_is_said_not_to_be_is_none(said):
    (one,) = read(f"{BARE}## Script\n{said}\n", "x").skills
    assert one.script is None


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        ("I could not find anything.", "no skill document"),
        ("None of it is clear:\n```python\nx\n```", "no skill document"),
        ("", "reply is empty"),
        (" \n", "reply is empty"),
        ("<think>There is " + GOOD, "a thought that did not end"),
        (GOOD.replace("score: 0.9", "score: high"), "score is 'high'"),
        (GOOD.replace("score: 0.9", "score: 1.5"), "score is '1.5'"),
        (GOOD.replace("score: 0.9", "score: 0.0 to 1.0"), "score is '0.0 to 1.0'"),
        (GOOD.replace("score: 0.9\n", ""), "lacks 'score'"),
        (GOOD.replace("name: gcd", "name: ../gcd"), "snake_case"),
        (GOOD.replace("name: gcd", "name: [gcd"), "snake_case"),
        (GOOD.replace("name: gcd", "name: " + "g" * 65), "snake_case"),
        (GOOD.replace("## Effect\nNeeds factors.\n", ""), "'## Effect' is missing"),
        (GOOD.partition("## Structure")[0] + "Two numbers.", "'## Structure' is missing"),
        (BARE + "## Script\nIt adds them.\n", "'## Script' holds no code"),
        (FORM.partition("form:\n\n")[2], "name repeats the form"),
        (GOOD.replace("name: gcd", "name: snake_case_name"), "name repeats the form"),
        (GOOD.replace("category: maths", "category: one lower-case word"), "category repeats the form"),
        (GOOD.replace("category: maths", "category: two lower-case words"), "category repeats the form"),
        (GOOD.replace("category: maths", "category: whatever one may think of"), "expected one lower-case word"),
        (GOOD.replace("Needs factors.", "How the skill makes a problem harder."), "Effect repeats the form"),
    ],
)
def test_a_document_that_is_none_is_named(reply, complaint):
    found = read(reply, "notes.md:3")
    (fault,) = found.faults
    assert not found.skills and complaint in fault
    assert fault.startswith("notes.md:3") and "\n" not in fault


def test_a_skill_about_lower_case_words_is_one():
    assert read(GOOD.replace("the greatest common divisor", "count the lower-case words"), "x").skills


@given(
    st.text(max_size=200)
    | st.lists(st.sampled_from([*GOOD.splitlines(), "", "---", "```", "##", "name:"])).map("\n".join)
)
@settings(deadline=None)
def test_any_reply_has_an_outcome(reply):
    found = read(reply, "x")
    assert all("\n" not in fault for fault in found.faults)


def test_a_repair_says_what_was_wrong_and_shows_the_form_again():
    messages = repair_messages([{"role": "user", "content": "Body"}], "reply", ["x: score is 'high'"])
    assert [m["role"] for m in messages] == ["user", "assistant", "user"]
    assert messages[1]["content"] == "reply" and "score is 'high'" in messages[2]["content"]
    assert FORM in messages[2]["content"]


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
    assert sorted(p.name for p in tmp_path.iterdir()) == ["add", "gcd", "manifest.json", "skills.parquet"]
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
