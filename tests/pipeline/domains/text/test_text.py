"""The text domain: its prompts are files, a user's are laid over them, and a run knows which it had."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from actors import prompts
from actors.chat import ChatFormat
from pipeline import domains
from pipeline.cli import main
from pipeline.config import STYLES, EpisodeLimits, MiniDomainConfig, SFTStage, TextDomainConfig
from pipeline.domains.text import BUNDLED
from pipeline.records import ANSWER_KINDS, Failure
from pipeline.skills import candidates, replies, rubric
from pipeline.skills.extraction import Document, SkillLibrary, acquisition_messages
from pipeline.store import manifest
from tests.actors.test_episode import CHAT

CONFIG = """
domain: {kind: text, prompts: %s}
proposer: {path: nowhere}
teacher: {kind: openai, base_url: "http://localhost:1/v1", model: m}
acquire: {corpus: [corpus]}
committee: {verifiers: [{kind: model, base_url: "http://localhost:1/v1", model: a},
                        {kind: model, base_url: "http://localhost:1/v1", model: b}]}
prober: {ladder: [{path: nowhere}]}
solve: {base: {path: nowhere}}
evaluate: {benchmark: nowhere.jsonl}
"""


def text_domain(**fields: object):
    return domains.of(TextDomainConfig(**fields))


def test_every_role_has_a_prompt_and_every_kind_of_answer_its_solver() -> None:
    told = text_domain().prompts
    assert set(told.solvers()) == set(ANSWER_KINDS) and len(set(told.solvers().values())) == len(ANSWER_KINDS)
    for kind in ("math", "choice", "text"):
        assert r"\boxed{" in told.solvers()[kind]
    assert "```python" in told.solvers()["code"]
    assert prompts.places(told.questions) == prompts.places(told.prose) == {"form", "text", "categories"}


def test_the_proposers_prompt_leaves_the_context_to_the_work() -> None:
    """At most 15 % of an episode's tokens, at three characters a token: any tokenizer of a language model has more."""
    limits = EpisodeLimits()
    assert len(CHAT.system(text_domain().prompts.proposer, limits)) / 3 <= 0.15 * limits.max_tokens
    assert isinstance(CHAT, ChatFormat)


def test_the_example_of_an_extraction_prompt_is_a_document_as_the_reader_reads_it() -> None:
    for role in ("extract_questions", "extract_prose"):
        reading = replies.read((BUNDLED / f"{role}.md").read_text(), "prompt")
        assert not reading.faults and len(reading.skills) == 1 and reading.skills[0].script


def test_a_teacher_is_told_the_users_categories() -> None:
    domain = text_domain(categories=("law", "maths"))
    (message,) = acquisition_messages(Document("x", "text", "Body {{form}}"), domain.prompts.prose, domain.categories)
    assert "one of law, maths;" in message["content"] and message["content"].endswith("Body {{form}}\n</text>")
    assert domain.categories == ("law", "maths")


def test_a_prompt_of_the_users_own_replaces_the_bundled_one(tmp_path: Path) -> None:
    (tmp_path / "solver_text.md").write_text("Answer in one word.")
    mine, bundled = text_domain(prompts=str(tmp_path)).prompts, text_domain().prompts
    assert mine.solvers() == bundled.solvers() | {"text": "Answer in one word."}
    differing = {role for role, digest in mine.digests().items() if bundled.digests()[role] != digest}
    assert differing == {"solver_text"}
    (tmp_path / "solver.md").write_text("x")
    with pytest.raises(Failure, match=r"no prompt is called 'solver\.md'; expected any of extract_prose\.md"):
        text_domain(prompts=str(tmp_path))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_a_share_of_the_combinations_is_held_out_whatever_their_order(share: float) -> None:
    domain = text_domain(heldout=share)
    sets = [(f"skill_{a}", f"skill_{b}") for a in range(60) for b in range(a)]
    found = [domain.is_heldout(ids) for ids in sets]
    assert abs(sum(found) / len(found) - share) < 0.04  # 1,770 sets: 3.4 deviations at a half
    assert found == [domain.is_heldout(ids[::-1]) for ids in sets]
    assert not any(domain.is_heldout((f"skill_{n}",)) for n in range(60))


# ---------------------------------------------------------------- a run


MARKS = json.dumps({item: {"reason": "as it should be", "points": 3} for item in rubric.ITEMS})


class Teacher:
    def __init__(self, reply: str):
        self.reply, self.asked = reply, []

    async def complete(self, messages, seed=0):
        self.asked.append(messages)
        return MARKS if messages[0]["content"].startswith("You hold a skill") else self.reply


async def answers(endpoint):
    return ""


def acquire(capsys, monkeypatch, tmp_path, teacher, code=0):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir(exist_ok=True)
    (tmp_path / "corpus").mkdir(exist_ok=True)
    (tmp_path / "corpus" / "a.md").write_text("Numbers leave remainders.")
    (tmp_path / "run.yaml").write_text(CONFIG % "mine")
    monkeypatch.setattr("pipeline.stages.acquire.make_teacher", lambda *_: teacher)
    monkeypatch.setattr("pipeline.pools.endpoints.ask", answers)
    with pytest.raises(SystemExit) as ended:
        main(["acquire", "--config", "run.yaml", "--run-dir", "r", "--json"])
    out, err = capsys.readouterr()
    assert ended.value.code == code, err
    return json.loads(out) if out else None, err


def test_an_example_that_the_teacher_copies_is_no_skill_and_a_skill_whose_script_fails_is_refused(
    capsys, monkeypatch, tmp_path
) -> None:
    example = (BUNDLED / "extract_prose.md").read_text()
    example = example[example.index("---\nname:") : example.index("<text>")]
    own = example.replace("heat_balance", "remainder_search").replace("final temperature", "number")
    failing = own.replace("remainder_search", "other_search").replace("the number", "another number")
    failing = failing.replace("    total =", "    return\n\nraise ValueError('oh')\n\ndef g(bodies):\n    total =")
    result, err = acquire(capsys, monkeypatch, tmp_path, Teacher(f"{example}\n{own}\n{failing}"))
    assert (result["copied_examples"], result["candidates"], result["scripts"]) == (1, 2, 1)
    assert result["refused"] == 1 and "other_search is refused: error: ValueError: oh" in err
    library = SkillLibrary.load(tmp_path / "r" / "skills")
    assert {s.id: (s.script is not None, s.score) for s in library} == {"remainder_search": (True, 0.75)}
    rows = {(c.skill.id, c.cause or c.outcome) for c in candidates.read(tmp_path / "r" / "skills")}
    assert rows == {("heat_balance", "example"), ("remainder_search", "kept"), ("other_search", "script")}


def test_a_run_goes_on_with_the_prompts_that_it_began_with(capsys, monkeypatch, tmp_path) -> None:
    own = (BUNDLED / "extract_questions.md").read_text()
    own = own[own.index("---\nname:") : own.index("<questions>")].replace("last_digit", "digit")
    teacher = Teacher(own.replace("find the last digit", "find a digit"))
    acquire(capsys, monkeypatch, tmp_path, teacher)
    noted = manifest.read(tmp_path / "r" / "prompts.json")
    assert noted == text_domain().prompts.digests()
    acquire(capsys, monkeypatch, tmp_path, teacher)
    (tmp_path / "mine" / "solver_math.md").write_text("Solve.")
    (tmp_path / "r" / "stages" / "acquire.json").unlink()  # a stage that is done tells nobody anything
    _, err = acquire(capsys, monkeypatch, tmp_path, teacher, code=2)
    assert "made with other prompts: solver_math; use those, or another --run-dir" in err


def test_the_rubric_is_one_text_wherever_it_stands() -> None:
    assert (BUNDLED / "score_skill.md").read_text().strip() == rubric.PROMPT


def test_a_teacher_has_words_for_each_style_and_the_mini_world_for_none() -> None:
    shares = SFTStage().styles
    told = domains.of(TextDomainConfig()).prompts.styles(shares)
    assert list(told) == list(STYLES) and all(share == 1 and words for share, words in told.values())
    assert len({words for _, words in told.values()}) == len(STYLES)
    assert domains.of(MiniDomainConfig()).prompts.styles(shares) == {}
