"""Acquisition with a teacher that fails: a reply that is none costs its own document, and no other's reply is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.config import OpenAITeacherConfig
from pipeline.records import Failure
from pipeline.skills import asked, candidates, rubric
from pipeline.skills.extraction import SkillLibrary, render
from pipeline.stages import acquire as stage
from tests.pipeline.domains.mini.test_skills import skill


class Teacher:
    """Says what is listed for a document, one thing an asking; a Failure is raised. Keeps what it was asked."""

    def __init__(self, replies: dict[str, list[str | Failure]]):
        self.replies = {name: list(said) for name, said in replies.items()}
        self.asked: list[tuple[str, int, int]] = []

    async def complete(self, messages, seed=0):
        name = messages[0]["content"].split()[-1]
        self.asked.append((name, len(messages), seed))
        said = self.replies[name].pop(0)
        if isinstance(said, Failure):
            raise said
        return said


def good(name: str, **more) -> str:
    return render(skill(id=name, intent=f"find {name}", **more))


def acquire(capsys, monkeypatch, tmp_path, teacher, code=0, more=()):
    """(result or None, stderr) of `propose acquire` over one document of each name."""
    monkeypatch.chdir(tmp_path)
    corpus = tmp_path / "corpus"
    corpus.mkdir(exist_ok=True)
    for name in teacher.replies:
        (corpus / f"{name}.txt").write_text(name)
    monkeypatch.setattr("pipeline.stages.acquire.make_teacher", lambda *_: teacher)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["acquire", "--run-dir", "r", "--json", "--set", "acquire.corpus=[corpus]", *more])
    out, err = capsys.readouterr()
    assert ended.value.code == code, err
    return json.loads(out) if out else None, err


def kept(tmp_path):
    return [s.id for s in SkillLibrary.load(tmp_path / "r" / "skills")]


EMPTY, DOWN, REFUSED = (
    Failure("the reply holds no text", "model_error"),
    Failure("http://x: no whole reply (5 tries)", "infra_error"),
    Failure("http://x: HTTP 400: too long", "data_error"),
)


def test_an_empty_reply_is_asked_for_again_with_another_seed(capsys, monkeypatch, tmp_path):
    teacher = Teacher({"a": [EMPTY, good("one")], "b": [good("two")]})
    result, _ = acquire(capsys, monkeypatch, tmp_path, teacher)
    assert (result["kept"], result["failed_replies"]) == (2, 0)
    seeds = [seed for name, _, seed in teacher.asked if name == "a"]
    assert len(set(seeds)) == len(seeds) == 2


@pytest.mark.parametrize("failure", [EMPTY, DOWN, REFUSED])
def test_a_failed_reply_costs_its_own_document(capsys, monkeypatch, tmp_path, failure):
    teacher = Teacher({"a": [failure] * 9, "b": [good("two")], "c": ["NONE"]})
    result, err = acquire(capsys, monkeypatch, tmp_path, teacher)
    assert (result["documents"], result["kept"], result["failed_replies"]) == (3, 1, 1)
    assert kept(tmp_path) == ["two"] and str(failure) in err
    assert [name for name, _, _ in teacher.asked].count("b") == 1


def test_a_document_is_tried_again_after_the_others(capsys, monkeypatch, tmp_path):
    teacher = Teacher({"a": [DOWN, good("one")], "b": [good("two")]})
    result, _ = acquire(capsys, monkeypatch, tmp_path, teacher)
    assert (result["kept"], result["failed_replies"]) == (2, 0)
    assert [name for name, _, _ in teacher.asked] == ["a", "b", "a"]


def test_where_no_document_is_answered_nothing_is_recorded_and_the_same_command_goes_on(capsys, monkeypatch, tmp_path):
    teacher = Teacher({"a": [DOWN, good("one")], "b": [DOWN, good("two")]})
    _, err = acquire(capsys, monkeypatch, tmp_path, teacher, code=75)
    assert "answered for none of 2 documents: http://x: no whole reply" in err.splitlines()[-1]
    result, _ = acquire(capsys, monkeypatch, tmp_path, teacher)
    assert (result["kept"], result["failed_replies"]) == (2, 0)


def test_an_endpoint_that_goes_away_between_waves_loses_no_reply(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("pipeline.stages.acquire._WAVE", 2)
    teacher = Teacher({"a": [good("one")], "b": [DOWN, good("two")], "c": [DOWN, good("three")], "d": [DOWN, "NONE"]})
    acquire(capsys, monkeypatch, tmp_path, teacher, code=75)
    result, _ = acquire(capsys, monkeypatch, tmp_path, teacher)
    assert (result["kept"], result["failed_replies"]) == (3, 0)
    assert [name for name, _, _ in teacher.asked].count("a") == 1


def test_a_stage_that_was_stopped_goes_on_from_its_wave_whatever_lies_before(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("pipeline.stages.acquire._WAVE", 2)
    names = "abcdefg"
    words = dict(zip(names, ("sums", "roots", "lenses", "isotopes", "orbits", "matrices", "syllogisms"), strict=True))
    replies = {name: [good(f"about_{word}", script=None)] for name, word in words.items()}
    teacher = Teacher(replies | {name: [DOWN, *replies[name]] for name in "ef"})
    acquire(capsys, monkeypatch, tmp_path, teacher, code=75)
    result, _ = acquire(capsys, monkeypatch, tmp_path, teacher)
    asked = [name for name, _, _ in teacher.asked]
    assert (result["documents"], result["kept"]) == (7, 7) and set(asked) == set(names)
    assert all(asked.count(name) == 1 + (name in "ef") for name in names)
    shards = sorted((tmp_path / "r" / "steps" / "acquire").glob("*/replies.jsonl"))
    assert [len(shard.read_text().splitlines()) for shard in shards] == [2, 2, 2, 1]


def test_a_corpus_that_has_changed_between_two_tries_is_refused_unless_more_follow(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("pipeline.stages.acquire._WAVE", 2)
    words = {"b": "sums", "c": "roots", "d": "lenses", "e": "orbits"}
    replies = {name: [good(f"about_{word}", script=None)] for name, word in words.items()}
    teacher = Teacher(replies | {name: [DOWN, *replies[name]] for name in "de"})
    acquire(capsys, monkeypatch, tmp_path, teacher, code=75)
    said = len(teacher.asked)

    first = tmp_path / "corpus" / "a.txt"
    first.write_text("a")
    _, err = acquire(capsys, monkeypatch, tmp_path, teacher, code=2)
    assert "acquire.corpus: document 1 is " in err and "a.txt now" in err and "`propose redo acquire " in err
    first.unlink()
    moved = (tmp_path / "corpus").rename(tmp_path / "away")
    acquire(capsys, monkeypatch, tmp_path, Teacher({"b": []}), code=2)
    assert len(teacher.asked) == said

    (tmp_path / "corpus" / "b.txt").unlink()
    (tmp_path / "corpus").rmdir()
    moved.rename(tmp_path / "corpus")
    teacher.replies["f"] = [good("about_matrices", script=None)]
    result, _ = acquire(capsys, monkeypatch, tmp_path, teacher)
    assert (result["documents"], result["kept"]) == (5, 5)


def test_a_reply_that_nobody_can_read_is_not_said_to_score_low(capsys, monkeypatch, tmp_path):
    teacher = Teacher({"a": ["no form at all", "again none"], "b": [EMPTY] * 9})
    _, err = acquire(capsys, monkeypatch, tmp_path, teacher, code=2)
    last = err.splitlines()[-1]
    assert "no skill in the replies to 2 documents: 1 could not be read, 1 did not come" in last
    assert "min_score" not in last


def test_a_stage_that_failed_is_not_said_to_be_done_and_status_says_why(capsys, monkeypatch, tmp_path):
    teacher = Teacher({"a": ["no form at all", "again none"]})
    _, err = acquire(capsys, monkeypatch, tmp_path, teacher, code=2)
    assert "acquire · stopped, 1/1 documents" in err and "· done" not in err
    with pytest.raises(SystemExit):
        main(["status", "r"])
    shown = capsys.readouterr().out.splitlines()
    assert "stopped in acquire" in shown[0]
    assert shown[1] == f"stopped by  {err.splitlines()[-1].removeprefix('propose: ')}"


def test_own_questions_without_a_model_are_answered_with_what_they_need(capsys, monkeypatch, tmp_path):
    """The mini world's scripted teacher reads the bundled corpus alone."""
    monkeypatch.chdir(tmp_path)
    Path("my.jsonl").write_text('{"question": "Tom has 3 apples and buys 4. How many?", "answer": "7"}\n')
    with pytest.raises(SystemExit) as ended:
        main(["acquire", "--run-dir", "r", "--set", "acquire.corpus=[my.jsonl]"])
    last = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2 and "replies to 1 document: " in last
    assert last.endswith("bundled corpus alone; for another, a model: teacher.kind=openai")
    openai = OpenAITeacherConfig(base_url="http://x/v1", model="m")
    assert "richer corpus" in stage._remedy(openai)


def test_skills_that_score_low_are_said_to(capsys, monkeypatch, tmp_path):
    teacher = Teacher({"c": [good("low", score=0.1)]})
    _, err = acquire(capsys, monkeypatch, tmp_path, teacher, code=2)
    assert "none of 1 candidate skills reaches acquire.min_score" in err.splitlines()[-1]


def test_what_is_wrong_with_a_document_is_told_to_the_teacher_once(capsys, monkeypatch, tmp_path):
    bad = good("lcm").replace("score: 0.9", "score: high")
    teacher = Teacher({"a": [good("gcd") + bad, good("lcm")], "b": [bad.replace("lcm", "odd"), "NONE"]})
    result, err = acquire(capsys, monkeypatch, tmp_path, teacher)
    assert kept(tmp_path) == ["gcd", "lcm"]
    assert result["malformed_replies"] == 1 and "score is 'high'" in err
    assert sorted(length for _, length, _ in teacher.asked) == [1, 1, 3, 3]
    (shard,) = (tmp_path / "r" / "steps" / "acquire").glob("*/replies.jsonl")
    saved = [json.loads(line) for line in shard.read_text().splitlines()]
    assert all("score is 'high'" in one["faults"][0] for one in saved)


def test_a_repair_that_fails_leaves_what_was_read(capsys, monkeypatch, tmp_path):
    teacher = Teacher({"a": [good("gcd") + good("lcm").replace("## Effect", "## X"), DOWN]})
    result, _ = acquire(capsys, monkeypatch, tmp_path, teacher)
    assert kept(tmp_path) == ["gcd"] and (result["malformed_replies"], result["failed_replies"]) == (1, 0)


def test_front_matter_over_a_body_without_headings_is_no_crash_on_resume_either(capsys, monkeypatch, tmp_path):
    headless = good("gcd").partition("## Structure")[0] + "Just text."
    teacher = Teacher({"a": [headless, headless], "b": [good("lcm", score=0.1)]})
    for _ in range(2):
        _, err = acquire(capsys, monkeypatch, tmp_path, teacher, code=2)
        assert "'## Structure' is missing" in err and "min_score" in err.splitlines()[-1]


# ---------------------------------------------------------------- scoring by a call of its own


class Judged:
    """A teacher that proposes one skill a document, and holds each against the rubric: points by the skill's name."""

    def __init__(self, points: dict[str, list[int | str]]):
        self.replies = {name: [] for name in points}
        self.points = {name: list(said) for name, said in points.items()}
        self.asked: list[str] = []

    async def complete(self, messages, seed=0):
        text = messages[0]["content"]
        if not text.startswith("You hold a skill"):
            name = text.split()[-1]
            self.asked.append(f"propose {name}")
            return good(name, script=None, score=0.1 if name == "fine" else 0.99)
        name = text.rpartition("<text>")[2].split()[0]
        self.asked.append(f"score {name}")
        said = self.points[name].pop(0)
        if isinstance(said, str):
            return said
        return json.dumps({item: {"reason": f"{name} is such", "points": said} for item in rubric.ITEMS})


RUBRIC = ("--set", "acquire.scoring=rubric")


def test_a_call_of_its_own_scores_each_candidate_and_not_the_teacher(capsys, monkeypatch, tmp_path):
    teacher = Judged({"fine": [4], "poor": [1], "odd": ["well, good", 3], "mute": ["?", "??"]})
    result, _ = acquire(capsys, monkeypatch, tmp_path, teacher, more=RUBRIC)
    assert (result["candidates"], result["kept"], result["dropped_low_score"], result["unscored"]) == (4, 2, 1, 1)
    library = SkillLibrary.load(tmp_path / "r" / "skills")
    assert {s.id: s.score for s in library} == {"fine": 1.0, "odd": 0.75}
    rows = {c.skill.id: c for c in candidates.read(tmp_path / "r" / "skills")}
    assert rows["fine"].proposed_score == 0.1 and rows["fine"].path.endswith("corpus/fine.txt")
    assert [m.reason for m in rows["poor"].marks] == ["poor is such"] * 4
    assert rows["poor"].reason == "scored 0.25, below acquire.min_score (0.5)"
    assert rows["mute"].reason == "no item of the rubric in the reply"
    assert sorted(teacher.asked) == sorted(
        ["propose fine", "score fine", "propose poor", "score poor", "propose odd", "score odd", "score odd",
         "propose mute", "score mute", "score mute"]
    )  # fmt: skip


def test_what_was_scored_is_not_asked_again(capsys, monkeypatch, tmp_path):
    teacher = Judged({"fine": [4], "poor": [1]})
    first, _ = acquire(capsys, monkeypatch, tmp_path, teacher, more=RUBRIC)
    asked = list(teacher.asked)
    (tmp_path / "r" / "stages" / "acquire.json").unlink()
    again, _ = acquire(capsys, monkeypatch, tmp_path, teacher, more=RUBRIC)
    assert teacher.asked == asked and again == first


def test_skills_that_say_the_same_are_one_and_every_proposal_stays_on_record(capsys, monkeypatch, tmp_path):
    body = {"intent": "how large a part is", "method": "A part and a whole.\n\nDivide the part by the whole."}
    one = render(skill(id="percent_change", score=0.6, category="math", script=None, **body))
    other = render(skill(id="percentage_change", score=0.8, category="history", script=None, **body))
    teacher = Teacher({"a": [one], "b": [other], "c": [good("gcd", script=None, score=0.2)]})
    result, err = acquire(capsys, monkeypatch, tmp_path, teacher)
    assert (result["kept"], result["duplicates"], result["dropped_low_score"]) == (1, 1, 1)
    assert result["merged_categories"] == {"history": "other"} and "category history go to other" in err
    rows = candidates.read(tmp_path / "r" / "skills")
    assert [(c.skill.id, c.outcome, c.of) for c in rows] == [
        ("percent_change", "merged", "percentage_change"), ("percentage_change", "kept", "percentage_change"),
        ("gcd", "rejected", None),
    ]  # fmt: skip


class Down:
    """Proposes; the endpoint goes away at some of the calls that score, and comes back."""

    def __init__(self, inner: Judged, at: set[int]):
        self.inner, self.at, self.scored = inner, at, 0

    @property
    def replies(self):
        return self.inner.replies

    async def complete(self, messages, seed=0):
        if messages[0]["content"].startswith("You hold a skill"):
            self.scored += 1
            if self.scored in self.at:
                raise DOWN
        return await self.inner.complete(messages, seed)


def test_what_was_paid_for_stays_where_the_endpoint_goes_away_while_it_scores(capsys, monkeypatch, tmp_path):
    inner = Judged({"fine": [4], "sound": [3]})
    result, err = acquire(capsys, monkeypatch, tmp_path, Down(inner, {1}), more=RUBRIC)
    assert (result["kept"], result["failed_replies"], result["unscored"]) == (2, 0, 0)
    assert "no score for each skill: http://x: no whole reply" in err
    assert sorted(inner.asked) == ["propose fine", "propose sound", "score fine", "score sound"]


def test_where_it_goes_away_for_all_of_a_wave_the_replies_are_on_disk(capsys, monkeypatch, tmp_path):
    inner = Judged({"fine": [4], "sound": [3]})
    _, err = acquire(capsys, monkeypatch, tmp_path, Down(inner, {1, 2}), code=75, more=RUBRIC)
    assert "answered to the end for none of 2 documents: http://x: no whole reply" in err.splitlines()[-1]
    result, _ = acquire(capsys, monkeypatch, tmp_path, inner, more=RUBRIC)
    assert result["kept"] == 2 and sorted(inner.asked) == ["propose fine", "propose sound", "score fine", "score sound"]


def test_a_score_that_never_comes_costs_its_skill_alone(capsys, monkeypatch, tmp_path):
    inner = Judged({"fine": [4], "sound": [3]})
    result, _ = acquire(capsys, monkeypatch, tmp_path, Down(inner, {1, 3, 4, 5}), more=RUBRIC)
    assert (result["kept"], result["unscored"], result["failed_replies"]) == (1, 1, 0)


def test_scores_belong_to_their_skills_by_name_and_not_by_place(capsys, monkeypatch, tmp_path):
    acquire(capsys, monkeypatch, tmp_path, Judged({"fine": [4], "poor": [1]}), more=RUBRIC)
    (shard,) = (tmp_path / "r" / "steps" / "acquire").glob("*/replies.jsonl")
    for line in map(json.loads, shard.read_text().splitlines()):
        (one,) = asked.read(line).skills
        assert list(line["scores"]) == [asked.key(one)]


def test_who_proposed_stays_with_each_skill(capsys, monkeypatch, tmp_path):
    one = "{kind: openai, base_url: 'http://x/v1', model: big}"
    mixture = f"teacher={{kind: mixture, of: [{{teacher: {one}}}, {{weight: 2, teacher: {{kind: scripted}}}}]}}"
    monkeypatch.setattr("pipeline.pools.endpoints.ask", lambda _: _answers())
    teacher = Teacher({name: [good(f"about_{name * 3}", script=None)] for name in "abcdefgh"})
    result, _ = acquire(capsys, monkeypatch, tmp_path, teacher, more=("--set", mixture))
    by = result["by_teacher"]
    assert set(by) == {"big", "scripted"} and sum(n["documents"] for n in by.values()) == 8
    rows = candidates.read(tmp_path / "r" / "skills")
    assert {name: sum(c.teacher == name for c in rows) for name in by} == {n: by[n]["documents"] for n in by}
    assert result["kept_per_document"] == sum(n["kept"] for n in by.values()) / 8


async def _answers():
    return ""


def test_documents_and_what_they_say_stay_for_the_proposer_to_learn_from(capsys, monkeypatch, tmp_path):
    acquire(capsys, monkeypatch, tmp_path, Teacher({"a": [good("one")], "b": [REFUSED] * 2}))
    shards = sorted((tmp_path / "r" / "steps" / "acquire").glob("*/replies.jsonl"))
    lines = {r["document"]: r for shard in shards for r in map(json.loads, shard.read_text().splitlines())}
    assert (lines[0]["text"], lines[0]["asked_as"]) == ("a", "text") and "text" not in lines[1]


def test_a_proposer_that_has_learned_to_extract_proposes_and_the_teacher_only_scores(capsys, monkeypatch, tmp_path):
    said: list[str] = []
    teacher, proposer = Judged({"fine": [4], "poor": [1]}), Judged({"fine": [], "poor": []})

    async def complete(messages, seed=0, inner=proposer.complete):
        said.append(messages[0]["content"])
        return await inner(messages, seed)

    monkeypatch.setattr(proposer, "complete", complete)
    monkeypatch.setattr("pipeline.stages.acquire.EndpointPolicy", lambda *_: proposer)
    monkeypatch.setattr("pipeline.pools.endpoints.ask", lambda _: _answers())
    who = "acquire.proposer={endpoint: {base_url: 'http://x/v1', model: mine}}"
    result, _ = acquire(capsys, monkeypatch, tmp_path, teacher, more=(*RUBRIC, "--set", who))
    assert (result["kept"], result["dropped_low_score"]) == (1, 1)
    assert (proposer.asked, sorted(teacher.asked)) == (["propose fine", "propose poor"], ["score fine", "score poor"])
    assert said == ["Skills of this text:\nfine", "Skills of this text:\npoor"]
    assert result["by_teacher"] == {"mine": {"documents": 2, "kept": 1}}
    assert "sft.extraction" in stage._remedy(OpenAITeacherConfig(base_url="http://x/v1", model="m"), learned=True)
