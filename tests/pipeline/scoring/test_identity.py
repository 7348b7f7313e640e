"""Copies and skeletons: what counts as the same, on both sides of the line."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import domains
from pipeline.config import MiniDomainConfig
from pipeline.domains.base import Identity
from pipeline.domains.mini.defects import sound_problems
from pipeline.domains.mini.domain import NAMES, THINGS
from pipeline.domains.mini.generate import Sentence, evaluate, read
from pipeline.scoring.identity import Register, alert, diversity

MINI = domains.of(MiniDomainConfig())
SOUND = [problem.question for problem, _ in sound_problems(60, 5)]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SOUND), st.sampled_from(NAMES), st.sampled_from(THINGS), st.integers(0, 9))
def test_names_things_and_wordings_make_no_other_problem(question, name, thing, seed):
    text, rng = read(question), Random(seed)
    others = [Sentence(s.rule, rng.randrange(len(s.rule.wordings)), s.args) for s in text.sentences]
    assert MINI.identity(evaluate(name, thing, others).question) == MINI.identity(question)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SOUND), st.integers(0, 99))
def test_two_orders_with_one_meaning_have_one_answer(question, seed):
    """Whatever order is called the same gives the same value, by the rules themselves."""
    text, rng = read(question), Random(seed)
    middle = list(text.sentences[1:-1])
    rng.shuffle(middle)
    other = evaluate(text.name, text.thing, [text.sentences[0], *middle, text.sentences[-1]])
    if not other.fault and MINI.identity(other.question) == MINI.identity(question):
        assert other.answer == text.answer


MIA = "Mia has 31 coins. Mia finds 12 more. Mia finds 3 more. Then Mia has 3 times as many. What is the number now?"


@pytest.mark.parametrize(
    ("question", "meaning", "skeleton"),
    [
        ("Tom has 31 pens. Tom buys 3 more. Tom finds 12 more. Then Tom has 3 times as many. What is the number now?",
         True, True),
        (MIA.replace("12", "13"), False, True),
        ("Mia has 31 coins. Mia finds 12 more. Then Mia has 3 times as many. Mia finds 3 more. What is the number now?",
         False, False),
        ("Mia has 31 coins. Mia finds 12 more. Mia loses 3. Then Mia has 3 times as many. What is the number now?",
         False, False),
    ],
)  # fmt: skip
def test_what_is_the_same_in_the_controlled_language(question, meaning, skeleton):
    one, other = MINI.identity(MIA), MINI.identity(question)
    assert (one.meaning == other.meaning, one.skeleton == other.skeleton) == (meaning, skeleton)


def test_the_order_of_a_list_counts_where_it_is_asked_for():
    summed = "A list holds {} and 4. Add up all values. What is the final value?"
    listed = "A list holds {} and 4. Add 2 to every value. What is the final list?"
    assert MINI.identity(summed.format("1, 9")) == MINI.identity(summed.format("9, 1"))
    assert MINI.identity(listed.format("1, 9")) != MINI.identity(listed.format("9, 1"))


TEXT = (
    "A farmer named Anna sells 12 crates of apples for 30 euros each and pays 45 euros for the stall. How much is left?"
)


@pytest.mark.parametrize(
    ("question", "meaning", "skeleton"),
    [
        (TEXT.replace("Anna", "Berta"), True, True),
        (TEXT.lower().replace("anna", "Anna"), True, True),
        (TEXT.replace(" ", "\u200b ").replace(",", ""), True, True),
        (TEXT.replace("12", "17"), False, True),
        ("A train leaves at 12 and arrives 30 minutes later, after 45 km. How fast is it?", False, False),
        ("What is 12 + 30 - 45?", False, False),
    ],
)
def test_what_is_the_same_in_free_text(question, meaning, skeleton):
    register = Register(lambda q: None)
    one, other = register.identify(TEXT), register.identify(question)
    assert (one.meaning == other.meaning, one.skeleton == other.skeleton) == (meaning, skeleton)


CHINESE = "一列火车以每小时80公里的速度行驶3小时，然后休息20分钟，再以同样的速度行驶2小时。火车一共行驶了多少公里？"


@pytest.mark.parametrize(
    ("question", "meaning", "skeleton"),
    [
        (CHINESE.replace("，", " ").replace("。", " "), True, True),
        (CHINESE.replace("80", "90"), False, True),
        (CHINESE.replace("火车一共", "它一共"), True, True),  # a few signs of many
        ("一个水池每小时进水80升，3小时后放水20升，再过2小时。水池里有多少升水？", False, False),
    ],
)
def test_what_is_the_same_in_chinese_which_has_no_blanks(question, meaning, skeleton):
    register = Register(lambda q: None)
    one, other = register.identify(CHINESE), register.identify(question)
    assert (one.meaning == other.meaning, one.skeleton == other.skeleton) == (meaning, skeleton)


def test_signs_are_part_of_a_text():
    register = Register(lambda q: None)
    assert register.identify("What is 2 + 3?").meaning != register.identify("What is 2 * 3?").meaning


def test_one_template_under_many_names_is_one_problem_and_an_alert():
    register = Register(MINI.identity)
    found = [register.identify(MIA.replace("Mia", n).replace("coins", t)) for n in NAMES for t in THINGS]
    figures = diversity(found)
    assert figures["skeletons"] == 1 and figures["skeleton_top_share"] == 1 and figures["skeleton_entropy"] == 0
    assert figures["near_duplicates"] == pytest.approx(1 - 1 / len(found))
    assert alert(figures, len(found)).startswith("1 skeletons in 144 problems")
    varied = [register.identify(q) for q in SOUND]
    assert alert(diversity(varied), len(varied)) == ""


@pytest.mark.parametrize("prompts", [5, 10])
def test_each_prompt_may_have_a_skeleton_of_its_own_and_all_together_may_not_have_one(prompts: int) -> None:
    own = diversity([Identity(f"{p} {i}", f"skeleton {p}") for p in range(prompts) for i in range(8)])
    assert alert(own, 8 * prompts, prompts) == "" and bool(alert(own, 8 * prompts)) is (prompts == 5)
    same = diversity([Identity(f"{i}", f"skeleton {int(i % 8 == 0)}") for i in range(8 * prompts)])
    assert "the commonest 88 %" in alert(same, 8 * prompts, prompts)


def test_what_repeats_is_worth_less_and_less_and_is_forgiven():
    register = Register(MINI.identity)
    shares = []
    for n in range(1, 41):
        identity = register.identify(f"Mia has {n} coins. Mia finds 12 more. What is the number now?")
        assert not register.known(identity)
        register.add(identity)
        shares.append(register.share(identity.skeleton, 8))
    assert shares == [min(1.0, 8 / n) for n in range(1, 41)]
    for _ in range(20):
        register.fade(10)
    assert register.share(identity.skeleton, 8) == 1.0
    assert register.known(identity)  # a copy stays one
