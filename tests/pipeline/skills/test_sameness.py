"""One skill under two names is one, two skills under one name are two; told of words alone, and of whole libraries."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.records import Skill
from pipeline.skills.sameness import alike, groups, same


def made(id: str, intent: str, method: str, effect: str = "Harder.", score: float = 0.9, category: str = "c") -> Skill:
    return Skill(id=id, category=category, intent=intent, method=method, difficulty=effect, tool_hint="Run it.",
                 score=score, source="a.md")  # fmt: skip


ONE = {
    "a word and its longer form": (
        made("percent_change", "find by how many percent a value has changed",
             "An old and a new value.\n\nSubtract the old value from the new one, divide by the old value.",
             "The base is the old value, which is easily mistaken."),
        made("percentage_change", "compute the percentage change between two quantities",
             "Quantities before and after.\n\nDivide the difference by the original quantity.",
             "Using the wrong base gives another answer.", category="finance"),
    ),
    "a verb in front": (
        made("solving_quadratic_equations", "solve an equation of degree two",
             "An equation.\n\nCompute the discriminant and use the quadratic formula.", "Its sign decides."),
        made("quadratic_equation", "find the real roots of a quadratic",
             "Coefficients a, b, c.\n\nUse the formula with the discriminant.", "None for a negative discriminant."),
    ),
    "initials": (
        made("gcd", "the greatest common divisor of two integers",
             "Two integers.\n\nApply Euclid's algorithm until the remainder is zero.", "Repeated division."),
        made("greatest_common_divisor", "find the largest integer that divides both integers",
             "Positive integers.\n\nEuclid's algorithm: replace the larger by the remainder.", "Several divisions."),
    ),
    "another order": (
        made("change_of_base", "write a logarithm to another base", "A logarithm.\n\nDivide the logarithms."),
        made("base_change", "turn one logarithm into a quotient of others", "A logarithm.\n\nDivide two logarithms."),
    ),
    "the same text under another name": (
        made("euclid", "the greatest common divisor of two integers",
             "Two integers.\n\nApply Euclid's algorithm until the remainder is zero.", "Repeated division."),
        made("largest_shared_factor", "the greatest common divisor of two integers",
             "Two integers.\n\nApply Euclid's algorithm until the remainder is zero.", "Repeated division."),
    ),
    "in Chinese": (
        made("中国剩余定理", "用中国剩余定理解同余方程组", "同余方程组\n\n逐个合并同余式", "模数越多越难"),
        made("中国剩余定理_题", "求同余方程组的最小正整数解", "若干同余式\n\n把同余式两两合并", "合并次数增多"),
    ),
}  # fmt: skip
TWO = {
    "the range of data and of a projectile": (
        made("range", "the spread between the largest and the smallest observation",
             "Observations.\n\nSubtract the minimum from the maximum.", "Outliers decide it."),
        made("range", "how far a projectile flies over level ground",
             "A launch speed and an angle.\n\nUse v squared sin two theta over g.", "Two angles give one distance."),
    ),
    "bases of numbers and in chemistry": (
        made("base", "convert a number to another base", "A number and a base.\n\nDivide and collect remainders."),
        made("base", "find the pH of a solution of a base", "A concentration.\n\nSolve for hydroxide."),
    ),
    "there and back": (
        made("km_to_m", "convert kilometres to metres", "A length in km.\n\nMultiply by 1000.", "Units change."),
        made("m_to_km", "convert metres to kilometres", "A length in m.\n\nDivide by 1000.", "Units change."),
    ),
    "to and from": (
        made("binary_encoding", "convert to binary", "A number.\n\nConvert the number to binary digits.", "Long."),
        made("binary_decoding", "convert from binary", "A number.\n\nConvert the number from binary digits.", "Long."),
    ),
    "to and from, in the name": (
        made("convert_to_binary", "write a number in base two", "A number.\n\nConvert the number to binary.", "Long."),
        made("convert_from_binary", "read a number in base two", "A number.\n\nConvert the binary number.", "Long."),
    ),
    "one and two": (
        made("one", "find one", "Two numbers.\n\nFind the largest divisor.", "Needs factors."),
        made("two", "find two", "Two numbers.\n\nFind the largest divisor.", "Needs factors."),
    ),
    "one word that is another": (
        made("sum_of_odd_numbers", "the sum of the first n odd numbers", "A count n.\n\nAdd up all of the first n odd "
             "numbers by the closed form that replaces a loop over them.", "A closed form replaces a loop."),
        made("sum_of_even_numbers", "the sum of the first n even numbers", "A count n.\n\nAdd up all of the first n "
             "even numbers by the closed form that replaces a loop over them.", "A closed form replaces a loop."),
    ),
    "largest and smallest": (
        made("list_max", "the largest value", "A list.\n\nFold it into its largest value.", "The list is gone."),
        made("list_min", "the smallest value", "A list.\n\nFold it into its smallest value.", "The list is gone."),
    ),
    "words of one beginning": (
        made("multiply", "the amount grows by a factor", "A number.\n\nMultiply by a whole factor.", "Numbers grow."),
        made("multiple", "ask for a multiple, yes or no", "A number.\n\nEnd with a question.", "A rest decides."),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ONE)
def test_one_skill_under_two_names(case: str) -> None:
    one, other = ONE[case]
    assert same(one, other) and same(other, one)
    assert groups([one, other]) == [[0, 1]]


@pytest.mark.parametrize("case", TWO)
def test_two_skills_that_look_alike(case: str) -> None:
    one, other = TWO[case]
    assert not same(one, other) and not same(other, one)
    assert sorted(groups([one, other])) == [[0], [1]]


def test_the_best_scored_stands_for_the_others_and_the_first_among_equals() -> None:
    one, other = ONE["initials"]
    low, high = one.model_copy(update={"score": 0.2}), other.model_copy(update={"score": 0.7})
    assert groups([low, high, other, other]) == [[2, 3, 1, 0]]


ALL = [skill for pair in (*ONE.values(), *TWO.values()) for skill in pair]


@given(st.lists(st.tuples(st.sampled_from(ALL), st.integers(0, 4)), max_size=14))
@settings(max_examples=25, deadline=None)
def test_every_candidate_is_in_one_group_whose_first_member_it_is(drawn: list[tuple[Skill, int]]) -> None:
    skills = [skill.model_copy(update={"score": score / 4}) for skill, score in drawn]
    found = groups(skills)
    assert sorted(place for group in found for place in group) == list(range(len(skills)))
    for first, *more in found:
        assert all(same(skills[first], skills[i]) and skills[i].score <= skills[first].score for i in more)
    firsts = [skills[first] for first, *_ in found]
    assert not any(same(one, other) for n, one in enumerate(firsts) for other in firsts[:n])


@pytest.mark.parametrize(("one", "other"), [("math", "maths"), ("Mathematics", "maths"), ("economics", "economic")])
def test_spellings_of_one_word(one: str, other: str) -> None:
    assert alike(one, other) and alike(other, one)


@pytest.mark.parametrize(("one", "other"), [("maths", "science"), ("law", "code"), ("art", "artillery")])
def test_two_words(one: str, other: str) -> None:
    assert not alike(one, other)
