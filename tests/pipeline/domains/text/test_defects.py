"""Planted defects of free text: what is planted differs in the way that its name says, in any script."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from random import Random

import pytest

from actors.answers import compare
from pipeline import domains
from pipeline.config import TextDomainConfig
from pipeline.domains.text.defects import BY_MODEL, plant, read
from pipeline.records import Failure, Problem

ENGLISH = Problem.make(
    "A train covers 120 kilometres in 2 hours. A car needs 3 hours for it. How many kilometres does the car cover in "
    "one hour?",
    "40",
)
CHINESE = Problem.make("一列火车2小时行驶120公里。汽车需要3小时。汽车每小时行驶多少公里？", "40")
CHOICE = Problem.make("Which is prime?\n(A) 4\n(B) 5\n(C) 6", "B", "choice")
SENTENCE = Problem.make("Which metal is liquid at 20 degrees?", "mercury", "text")
OTHER = Problem.make("Which gas burns with 2 parts of oxygen?", "hydrogen", "text")
CHECKS = [json.dumps({"entry": "f", "args": [n], "expected": n + 1}) for n in range(3)]
CODE = Problem.make("Write f(n) that adds 1.", "def f(n):\n    return n + 1", "code", CHECKS)
MORE = Problem.make(
    "Write g(n) that adds 2.", "def g(n):\n    return n + 2", "code", [c.replace("f", "g") for c in CHECKS]
)
SOUND = [(p, ("some_skill",)) for p in (ENGLISH, CHINESE, CHOICE, SENTENCE, OTHER, CODE, MORE)]


def planted(seed: int = 0):
    """(sound, planted) over many copies, so that each defect meets each kind of problem."""
    many = Random(5).choices(SOUND, k=280)
    return list(zip(many, plant(many, seed), strict=True))


def test_every_defect_is_planted_and_the_same_for_a_seed():
    counts = Counter(p.defect for _, p in planted())
    assert set(counts) == {
        "wrong_answer", "off_by_one", "missing_fact", "two_solutions", "contradictory", "unit", "answer_leaked",
        "injection", "unused_skill",
    }  # fmt: skip
    assert min(counts.values()) >= 10
    assert plant(SOUND * 5, 1) == plant(SOUND * 5, 1) != plant(SOUND * 5, 2)


def passes(program: str, check: str) -> bool:
    """Ours alone are run here."""
    wanted, names = json.loads(check), {}
    exec(program, names)
    return wanted["entry"] in names and names[wanted["entry"]](*wanted["args"]) == wanted["expected"]


def test_what_is_planted_is_unsound_as_its_name_says():
    for (problem, active), spoiled in planted():
        new, kind = spoiled.problem, spoiled.defect
        assert (new, spoiled.active) != (problem, active) and new.answer_kind == problem.answer_kind
        same_statement = new.question == problem.question
        if kind in ("wrong_answer", "off_by_one", "unit"):
            assert same_statement
        if kind in ("wrong_answer", "off_by_one") and problem.answer_kind != "code":
            assert compare(problem.answer_kind, problem.answer, new.answer) == "different"
        if kind == "off_by_one":
            assert abs(int(new.answer) - int(problem.answer)) == 1
        if kind == "wrong_answer" and problem.answer_kind == "code":
            assert not any(passes(new.answer, check) for check in problem.checks)
        if kind == "unit":
            assert new.answer in ("40 miles", "40 英里") and compare("math", "40 kilometres", "40 miles") == "different"
        if kind in ("missing_fact", "two_solutions", "contradictory", "answer_leaked"):
            assert not same_statement and new.answer == problem.answer
        if kind == "missing_fact":
            assert len(re.findall(r"\d+", new.question)) == len(re.findall(r"\d+", problem.question)) - 1
        if kind == "answer_leaked":
            assert new.question.count(problem.answer) > problem.question.count(problem.answer)
        if kind == "unused_skill":
            assert same_statement and set(spoiled.active) > set(active)
        if kind == "injection":
            assert not same_statement and compare(problem.answer_kind, problem.answer, new.answer) != "equal"


def test_a_chinese_statement_stays_chinese():
    chinese = plant([(CHINESE, ())] * 27, 0)
    assert len({p.defect for p in chinese}) == 9
    for spoiled in chinese:
        if spoiled.defect != "injection":
            assert not re.search(r"[A-Za-z]{2,} [A-Za-z]{2,}", spoiled.problem.question), spoiled


@pytest.mark.parametrize(
    "reply",
    [
        '{"question": "New?", "answer": "$\\\\frac{1}{2}$"}',
        'I leave it out.\n```json\n{"question": "New?", "answer": "$\\frac{1}{2}$",}\n```',
        "<think>{\"question\": 1}</think>{'question': 'New?', 'answer': '$\\frac{1}{2}$'}",
    ],
)
def test_what_a_model_spoils_is_read_as_models_write_it(reply):
    spoiled = read(reply, ENGLISH)
    assert (spoiled.question, spoiled.answer) == ("New?", "$\\frac{1}{2}$")


@pytest.mark.parametrize("reply", ["NONE", "", "{", '{"question": "New?"}', '{"question": "", "answer": "1"}', "[1]"])
def test_a_reply_that_spoils_nothing_is_none(reply):
    assert read(reply, ENGLISH) is None
    assert read(json.dumps({"question": ENGLISH.question, "answer": "40"}), ENGLISH) is None


def test_a_model_is_asked_for_each_defect_in_turn_and_what_fails_is_counted():
    asked = []

    class Teacher:
        async def complete(self, messages, seed=0):
            asked.append(messages[-1]["content"])
            if len(asked) == 2:
                raise Failure("gone", "infra_error")
            return "NONE" if len(asked) == 3 else json.dumps({"question": f"{len(asked)}?", "answer": "1"})

    domain = domains.of(TextDomainConfig())
    found, left = asyncio.run(domain.plant_by_model(SOUND, Teacher(), 0))
    assert len(found) == len(SOUND) - 2 and left == {"infra_error": 1, "no spoiled problem in the reply": 1}
    assert all(word in asked[i] for i, word in enumerate(BY_MODEL.values()))
    assert all(json.dumps(p.question, ensure_ascii=False) in text for (p, _), text in zip(SOUND, asked, strict=True))
    assert {p.defect.partition("/")[2] for p in found} == {"model"}
