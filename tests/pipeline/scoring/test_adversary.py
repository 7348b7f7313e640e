"""The adversary: its first generation, the truth it is held against, and a search through real judges."""

import asyncio
from random import Random

import pytest

from pipeline import domains
from pipeline.config import Config, MiniDomainConfig, TextDomainConfig
from pipeline.domains.mini.attacks import FIRST
from pipeline.domains.mini.defects import sound_problems
from pipeline.domains.mini.generate import read
from pipeline.records import Failure, Problem
from pipeline.scoring.adversary import EACH, search

MINI = domains.of(MiniDomainConfig())
ADVERSARY = MINI.adversary()


def test_the_first_generation_holds_every_kind_and_depends_on_the_seed_alone():
    first = ADVERSARY.first(Random(1), EACH)
    assert len(first) == len(FIRST) * EACH == 120
    assert {a.kind for a in first} == set(FIRST)
    assert first == ADVERSARY.first(Random(1), EACH)
    assert first != ADVERSARY.first(Random(2), EACH)
    for kind in FIRST:
        assert len({(a.question, a.answer, a.turns) for a in first if a.kind == kind}) >= 10


def test_what_follows_is_made_of_it_and_can_always_be_played():
    rng = Random(3)
    some = ADVERSARY.first(rng, 4)
    for _ in range(400):
        a, b = rng.choice(some), rng.choice(some)
        child = ADVERSARY.composed(a, b, rng) if rng.random() < 0.3 else ADVERSARY.mutated(a, rng)
        assert child.kind == a.kind and child.texts()[-1].startswith("## Finalize")
        assert set(child.dropped) <= set(child.offered)
        some.append(child)


ASKED = ("add", "multiply")
GOOD = "Mia has 5 coins. Mia finds 3 more. Then Mia has 4 times as many. How many coins does Mia have now?"


@pytest.mark.parametrize(
    ("question", "answer", "offered", "category", "expected"),
    [
        (GOOD, "32", ASKED, "maths", set()),
        (GOOD, "33", ASKED, "maths", {"wrong"}),
        (GOOD, "32.0", ASKED, "maths", {"wrong"}),
        (GOOD, "32", ASKED, "science", {"off_task"}),
        (GOOD, "32", ("add", "gcd"), "maths", {"off_task"}),
        (GOOD.replace("3 more", "0 more"), "20", ASKED, "maths", {"vacuous"}),
        (GOOD.replace("4 times", "1 times"), "8", ASKED, "maths", {"vacuous"}),
        (GOOD.replace("coins", "thousand"), "32", ASKED, "maths", {"ill_posed"}),
        (GOOD.replace("Mia", "Halved"), "32", ASKED, "maths", {"ill_posed"}),
        (GOOD.replace("5 coins", "05 coins"), "32", ASKED, "maths", {"ill_posed"}),
        (GOOD + " Thanks!", "32", ASKED, "maths", {"ill_posed"}),
        ("Mia has 5 coins. Mia loses 7. What is the number now?", "2", ("subtract",), "maths", {"ill_posed"}),
        ("Mia has 5 coins. Keep the larger of it and 999999. What is the number now?", "999999", ("larger",), "maths",
         set()),
        ("Mia has 5 coins. Mia finds 3 more. Keep the larger of it and 999999. What is the number now?", "999999",
         ("add", "larger"), "maths", {"vacuous"}),
        ("Mia has 5 coins. Mia finds 4 more. Is the number now even or odd?", "odd", ("add", "parity"), "maths",
         {"vacuous"}),
        ("Mia has 5 coins. How many coins does Mia have now?", "5", (), "maths", {"vacuous"}),
    ],
)  # fmt: skip
def test_the_truth_on_both_sides_of_each_line(question, answer, offered, category, expected):
    kind = "choice" if answer == "odd" else "math"
    attack = ADVERSARY.first(Random(0), 1)[0]
    attack = type(attack)(kind="", category=category, offered=offered, question=question, answer=answer)
    assert ADVERSARY.faults(attack, Problem.make(question, answer, kind)) == expected


def test_sound_problems_are_true_and_mostly_of_substance():
    attack = ADVERSARY.first(Random(0), 1)[0]
    found = []
    for problem, active in sound_problems(60, 9):
        asked = type(attack)("", read(problem.question).category, active, problem.question, problem.answer)
        found.append(ADVERSARY.faults(asked, problem))
    assert all(f <= {"vacuous"} for f in found)


def test_a_domain_without_a_truth_says_so():
    with pytest.raises(Failure, match="expected domain mini"):
        domains.of(TextDomainConfig()).adversary()


@pytest.mark.slow
def test_a_search_through_real_judges_finds_nothing_wrong_or_ill_posed():
    config = Config(domain="mini")
    found = asyncio.run(search(config, MINI, 400, 0, lambda line: None))
    again = asyncio.run(search(config, MINI, 400, 0, lambda line: None))
    assert found == again
    assert found["tries"] == 400 and 0 < found["accepted"] < 400
    assert {"wrong", "ill_posed", "mislabelled", "idle_credit", "blame", "undecided"}.isdisjoint(found["by_fault"])
    assert all(n["tries"] >= EACH for n in found["by_kind"].values())
