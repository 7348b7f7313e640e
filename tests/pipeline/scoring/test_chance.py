"""What guessing explains, against guessers that are played."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.passk import estimate
from pipeline import domains
from pipeline.config import MiniDomainConfig, RewardConfig
from pipeline.domains.mini.generate import read
from pipeline.records import Problem
from pipeline.scoring import chance

MINI = domains.of(MiniDomainConfig())


def baseline(question):
    text = read(question)
    return chance.baseline(text.problem, MINI.twins(question))


GUESSABLE = [
    ("Mia has 987654 coins. Then Mia has 987 times as many. Mia packs them in rows of 7 and keeps the rest. "
     "What is the number now?", 1 / 7),
    ("Mia has 5 coins. Mia finds 3 more. Is the number now even or odd?", 1 / 2),
    ("Mia has 500 coins. Mia finds 31 more. Is the number now a multiple of 7?", 1 / 2),
    ("Mia has 52 coins. Take the greatest common divisor with 7. What is the number now?", 1 / 2),
    ("Mia has 5 coins. Keep the larger of it and 999999. What is the number now?", 0.95),
    ("A list holds 3, 8 and 12. Keep only the values above 700. Count the values. What is the final value?", 0.9),
]  # fmt: skip
HONEST = [
    "Mia has 52 coins. Mia finds 31 more. Then Mia has 4 times as many. What is the number now?",
    "A car moves at 60 km per hour for 3 hours. Convert the distance to metres. How many metres is that?",
    "A list holds 13, 28 and 52. Add 14 to every value. Add up all values. What is the final value?",
]


@pytest.mark.parametrize(("question", "least"), GUESSABLE)
def test_what_is_guessable_has_a_chance(question, least):
    assert baseline(question) >= least


@pytest.mark.parametrize("question", HONEST)
def test_what_must_be_worked_out_has_none(question):
    assert baseline(question) < 0.1


def test_a_twin_is_the_question_with_other_numbers_and_its_own_answer():
    question = GUESSABLE[0][0]
    twins = MINI.twins(question)
    assert len({q for q, _ in twins}) > 20
    for twin, answer in twins:
        text = read(twin)
        assert text.answer == answer
        assert [s.rule.id for s in text.sentences] == [s.rule.id for s in read(question).sentences]
    assert twins == MINI.twins(question)
    assert MINI.twins("What is love?") == []


@pytest.mark.parametrize(
    ("question", "answer", "kind", "expected"),
    [
        ("Which?\nA) x\nB) y\nC) z\nD) w", "B", "choice", 1 / 4),
        ("Which?\n(A) x\n(B) y", "A", "choice", 1 / 2),
        ("Is it so?", "Yes", "text", 1 / 2),
        ("How many?", "12", "math", 0.0),
    ],
)
def test_the_kind_of_an_answer_gives_a_chance(question, answer, kind, expected):
    assert chance.baseline(Problem.make(question, answer, kind)) == expected


@pytest.mark.parametrize("guess", [1 / 2, 1 / 7, 0.9])
@pytest.mark.parametrize("n", [8, 32])
def test_guessers_seldom_pass_for_solvers(guess, n):
    rng, passed = Random(1), 0
    for _ in range(4000):
        correct = sum(rng.random() < guess for _ in range(n))
        passed += chance.measured(estimate("p", correct, n - correct, 0, 4, "m"), guess, RewardConfig()).solved
    assert passed / 4000 <= 0.06


@given(st.integers(1, 16), st.integers(0, 16), st.integers(0, 8), st.floats(0, 1), st.floats(0.001, 1))
def test_as_many_right_samples_as_are_enough_are_still_enough_when_some_cannot_be_judged(n, right, out, guess, level):
    reward, judged = RewardConfig(significance=level), max(n - out, 1)
    right = min(right, judged)
    if right >= chance.enough(n, guess, reward):
        found = estimate("p", right, judged - right, n - judged, 1, "m")
        assert chance.measured(found, guess, reward).solved


@given(st.integers(0, 8), st.floats(0, 1), st.floats(0.001, 1), st.sampled_from(["rate", "pass_at_k"]))
def test_solved_and_difficulty_by_their_definitions(correct, guess, significance, reading):
    reward = RewardConfig(significance=significance, rho=reading)
    probe = chance.measured(estimate("p", correct, 8 - correct, 0, 4, "m"), guess, reward)
    tail = sum(math.comb(8, i) * guess**i * (1 - guess) ** (8 - i) for i in range(correct, 9))
    assert probe.solved == (correct > 0 and tail <= significance)
    assert 0 <= chance.difficulty(probe) <= 1
    rho = {"rate": correct / 8, "pass_at_k": 1 - math.comb(8 - correct, 4) / math.comb(8, 4)}[reading]
    assert probe.rho == pytest.approx(rho)
    if guess == 0:
        assert probe.solved == (correct > 0)
        assert chance.difficulty(probe) == pytest.approx(1 - rho)


@pytest.mark.parametrize("reading", ["rate", "pass_at_k"])
@pytest.mark.parametrize("guess", [1 / 2, 1 / 7])
def test_what_a_guesser_reaches_is_as_hard_as_can_be_and_what_is_always_solved_is_not(reading, guess):
    """The difficulty is 1 at a guesser's own rho, 0 where all samples are right, and falls in between."""
    reward, n = RewardConfig(rho=reading), 14
    at = [chance.difficulty(chance.measured(estimate("p", c, n - c, 0, 2, "m"), guess, reward)) for c in range(n + 1)]
    assert at == sorted(at, reverse=True) and at[0] == 1 and at[n] == 0
    if reading == "rate":
        assert at[round(n * guess)] == pytest.approx(1) and at[round(n * guess) + 1] < 1
