"""What becomes a row, and what an accepted problem that does not is counted as."""

from types import SimpleNamespace

from pipeline.config import RewardConfig
from pipeline.scoring import chance
from pipeline.scoring.identity import Register
from pipeline.scoring.judged import Judged
from pipeline.scoring.selection import Selection
from tests.pipeline.judged import episode, probe, task, verdict


def judged(i, question, decision="accepted", used=("add",), rho=0.25):
    e = episode(task(f"g-{i:02d}"), question=question)
    v = verdict(e, decision).model_copy(update={"used_skills": used})
    return Judged(e, v, probe(e, rho) if decision == "accepted" else None)


def selection():
    heldout = SimpleNamespace(is_heldout=lambda skills: set(skills) == {"gcd", "lcm"}, identity=lambda q: None)
    return Selection(heldout, Register(heldout.identity))


def test_every_accepted_problem_ends_in_one_place():
    s = selection()
    some = [
        judged(0, "Problem 1?"),
        judged(1, "problem 1"),
        judged(2, "Problem 2?", used=("gcd", "lcm")),
        judged(3, "Problem 3?", rho=0.0),
        judged(4, "Problem 4?", decision="rejected"),
        judged(5, "Problem 5?"),
    ]
    assert s.take(some) == {some[1].key}
    assert [j.key for j in s.chosen] == [some[0].key, some[5].key]
    assert [j.key for j in s.unsolved] == [some[3].key]
    assert s.left_out == {"copies": 1, "held-out combinations": 1}


def test_a_combination_is_held_against_what_the_problem_uses_not_what_was_offered():
    """Dropping a skill, or using one more, can make a held-out combination of an offered one."""
    s = selection()
    kept = judged(0, "Problem 1?", used=("gcd", "add"))
    s.take([kept, judged(1, "Problem 2?", used=("gcd", "lcm"))])
    assert [j.key for j in s.chosen] == [kept.key]


def test_what_only_guessers_solve_is_no_row():
    s, j = selection(), judged(0, "Problem 1?")
    guessed = chance.measured(j.probe, 0.5, RewardConfig())
    s.take([Judged(j.episode, j.verdict, guessed)])
    assert not s.chosen and len(s.unsolved) == 1


def test_what_other_data_sets_have_is_no_row_and_told_by_whose():
    from pipeline.dataset.matching import Foreign

    rho = "How far does a cart roll that starts at 3 metres and rolls 5 metres each second?"
    s = selection()
    s.foreign = Foreign({"bench": [rho], "other": ["Count the red beads on a string of 12 beads, every third red."]})
    asked = [
        rho.upper(),
        rho.replace("3", "4"),
        "Count the red beads  on a string of 12 beads; every third red",
        "Problem 9?",
    ]
    some = [judged(i, question) for i, question in enumerate(asked)]
    s.take(some)
    assert [j.key for j in s.chosen] == [some[1].key, some[3].key]
    assert s.left_out == {"in bench: exact": 1, "in other: exact": 1}


def test_a_question_that_says_its_answer_is_no_row():
    s, j = selection(), judged(0, "What is 1 + 1? The answer is 2.")
    s.take([j])
    assert not s.chosen and s.left_out == {"answer stated in the question": 1}
