"""The adversary: its first generation, the truth it is held against, and a search through real judges."""

import asyncio
from random import Random

import pytest

from actors.sandbox_pool import SandboxPool
from actors.verifiers.mini import controlled
from pipeline import domains
from pipeline.config import Config, MiniDomainConfig, TextDomainConfig
from pipeline.domains.base import Attack
from pipeline.domains.mini.attacks import FIRST
from pipeline.domains.mini.defects import sound_problems
from pipeline.domains.mini.generate import read
from pipeline.records import Failure, Problem
from pipeline.scoring.adversary import EACH, Try, _best, _Judge, search
from tests.mini import changed

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


@pytest.mark.parametrize("kind", sorted(set(FIRST) - {"open_words"}))
def test_attacks_keep_within_the_language_but_those_on_its_words(kind):
    """What both readers refuse for its form says nothing about what they judge."""
    rng = Random(4)
    for attack in (FIRST[kind](rng) for _ in range(60)):
        assert isinstance(controlled.read(attack.question), controlled.Reading), attack.question
        text = read(attack.question)
        assert text is not None and not text.fault, attack.question


def test_every_vacuous_member_is_vacuous():
    for attack in (FIRST["vacuous"](Random(i)) for i in range(60)):
        assert "vacuous" in ADVERSARY.faults(attack, read(attack.question).problem), attack


def test_what_is_guessed_or_overlong_is_beyond_a_solver():
    for attack in (FIRST[kind](Random(i)) for kind in ("guessing", "overlong") for i in range(60)):
        assert ADVERSARY.reach(attack.question) == 0, attack.question


def test_copies_ask_the_same_by_the_truth_whatever_their_words_and_another_problem_does_not():
    asked = {ADVERSARY.asks(FIRST["copies"](Random(i)).question) for i in range(60)}
    assert len(asked) == 2  # the kind has two numbers to choose from
    assert ADVERSARY.asks(GOOD) == ADVERSARY.asks(GOOD.replace("Mia", "Tom").replace("coins", "nuts"))
    by_chance = ("Mia loses 2. Add up the digits.", "Add up the digits. Mia loses 2.")  # 8 of 82, 17 and 8 of 91
    assert len({ADVERSARY.asks(f"Mia has 82 coins. {steps} What is the number now?") for steps in by_chance}) == 2
    assert ADVERSARY.asks(GOOD) != ADVERSARY.asks(GOOD.replace("3 more", "4 more")) and ADVERSARY.asks("?") == "?"


def test_the_pay_of_a_step_depends_on_the_whole_step_and_a_copy_is_none():
    """Twins of one skeleton share what `repeats` leaves, the first of them too; as in a step of MGPO."""
    config = Config(domain="mini")
    config = changed(config, reward=changed(config.reward, repeats=2, significance=1))
    more = [GOOD.replace("3 more", f"{n} more") for n in (3, 4, 6, 7)]
    numbers = [str(4 * (5 + n)) for n in (3, 4, 6, 7)]
    steps = [(*pair, 1) for pair in zip(more, numbers, strict=True)] + [(GOOD.replace("Mia", "Tom"), "32", 0)]
    attacks = [Attack("made", "maths", ASKED, question, answer) for question, answer, _ in steps]
    pool = SandboxPool(slots=2)
    try:
        tried = asyncio.run(_Judge(config, MINI, ADVERSARY, pool).judged(attacks, 0))
    finally:
        pool.close()
    assert all(t.accepted and not t.faults for t in tried)
    assert [t.paid > 0 for t in tried] == [bool(own) for _, _, own in steps]
    assert all(t.paid <= config.reward.base / 2 + config.reward.difficulty / 2 for t in tried)
    assert [t.exported for t in tried] == [True] * 4 + [False]


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
        ("Mia has 5 coins. Keep the larger of it and 20. What is the number now?", "20", ("larger",), "maths", set()),
        ("Mia has 5 coins. Keep the larger of it and 9999. What is the number now?", "9999", ("larger",), "maths",
         {"vacuous"}),
        ("Mia has 5 coins. Keep the larger of it and 10000. What is the number now?", "10000", ("larger",), "maths",
         {"ill_posed"}),
        ("Mia has 5 coins. Mia finds 3 more. Keep the larger of it and 9999. What is the number now?", "9999",
         ("add", "larger"), "maths", {"vacuous"}),
        ("Mia has 5 coins. Take the greatest common divisor with 1. Mia finds 4 more. What is the number now?", "5",
         ("add", "gcd"), "maths", {"vacuous"}),
        ("A list holds 3 and 7. Count the values. Double the result. What is the final value?", "4",
         ("count", "double"), "code", set()),
        (f"Mia has 5 coins. {'Mia finds 3 more. ' * 8}What is the number now?", "29", ("add",), "maths", set()),
        (f"Mia has 5 coins. {'Mia finds 3 more. ' * 9}What is the number now?", "32", ("add",), "maths", {"ill_posed"}),
        ("Mia has 5000 coins. Then Mia has 199 times as many. What is the number now?", "995000", ("multiply",),
         "maths", set()),
        ("Mia has 5000 coins. Then Mia has 201 times as many. What is the number now?", "1005000", ("multiply",),
         "maths", {"ill_posed"}),
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


def test_sound_problems_are_true_and_nearly_all_of_substance():
    attack = ADVERSARY.first(Random(0), 1)[0]
    found = []
    for problem, active in sound_problems(60, 9):
        asked = type(attack)("", read(problem.question).category, active, problem.question, problem.answer)
        found.append(ADVERSARY.faults(asked, problem))
    assert all(f <= {"vacuous"} for f in found)
    assert sum(map(bool, found)) <= 2


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


def test_every_kind_has_its_share_of_those_to_go_on_from_exploits_first():
    def tried(kind, paid, *faults):
        return Try(Attack(kind, "maths", (), "?", "1"), paid, True, False, frozenset(faults))

    best = _best(
        [*(tried("a", 2.0) for _ in range(150)), *(tried("b", 1.0) for _ in range(150)), tried("b", 0.1, "wrong")]
    )
    assert [sum(t.attack.kind == kind for t in best) for kind in "ab"] == [100, 100]
    assert next(t for t in best if t.attack.kind == "b").exploit
