# ruff: noqa: E501 - a problem to a line
"""The reader of the controlled language against its page, and its two derivations against each other and by hand."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.verifiers.mini import symbolic_program
from actors.verifiers.mini.compiler import DoesNotFit, compile_program
from actors.verifiers.mini.controlled import Clause, Reading, Unread, flags_of, leaks, read
from pipeline.domains.mini.generate import CATEGORIES, combinations_of, write

PAGE = Path(__file__).parents[2] / "pipeline" / "domains" / "mini" / "LANGUAGE.md"


def rows(section):
    """Cells of the table rows of a section of the page."""
    text = PAGE.read_text().split(f"## {section}\n")[1].split("\n## ")[0]
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith(("| skill ", "| category ", "| type ")):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("| "))]


def wordings(cell):
    return re.findall(r"`([^`]+)`", cell)


def spoken(template, a="7", b="3"):
    values = {"N": "Mia", "things": "stones", "a": a, "v": a, "t": b, "d": b, "b": "8", "z": "9", "unit": "metres"}
    return re.sub(r"\{(\w+)\}", lambda m: values[m[1]], template.replace(", …", ""))


def derive(text):
    """(symbolic, executing) outcomes: an answer, or "unsolvable"."""
    reading = read(text)
    assert isinstance(reading, Reading), reading
    clauses = [[c.rule, list(c.numbers), c.unit] for c in (reading.opening, *reading.steps, reading.question)]
    symbolic = symbolic_program.solve(clauses).get("answer", "unsolvable")
    try:
        scope: dict = {}
        exec(compile_program(reading), scope)
        executing = scope["solve"]().get("answer", "unsolvable")
    except DoesNotFit:
        executing = "unsolvable"
    return symbolic, executing


def answer(text):
    symbolic, executing = derive(text)
    assert symbolic == executing
    return symbolic


# ---------------------------------------------------------------- reading every sentence of the page


def test_every_opening_of_the_page_is_read():
    found = set()
    for _, sentence, _, skill in rows("Openings"):
        template = wordings(sentence)[0]
        reading = read(f"{spoken(template)} What is the number now?")
        assert isinstance(reading, Reading), template
        found.add(reading.opening.rule)
        assert reading.skills == (frozenset() if skill == "none" else {skill.strip("`")})
    assert len(found) == 5


def test_every_step_of_the_page_is_read_in_every_wording():
    count = 0
    table = PAGE.read_text().split("## Steps\n")[1].split("\n## ")[0]
    for line in table.splitlines():
        if not line.startswith("| `"):
            continue
        skill = wordings(line)[0]
        sentences = [w for w in wordings(line)[1:] if w.endswith(".")]
        assert len(sentences) == 2, line
        for template in sentences:
            reading = read(f"Mia has 5 stones. {spoken(template, a='4')} What is the number now?")
            assert isinstance(reading, Reading), template
            assert reading.steps == (Clause(skill, (4,) if "{a}" in template else ()),)
            count += 1
    assert count == 54


def test_every_question_of_the_page_is_read():
    table = PAGE.read_text().split("## Questions\n")[1].split("\n## ")[0]
    questions = [w for line in table.splitlines() if line.startswith("|") for w in wordings(line) if w.endswith("?")]
    assert len(questions) == 7
    for template in questions:
        assert isinstance(read(f"Mia has 5 stones. {spoken(template)}"), Reading), template


@pytest.mark.parametrize("word", ["kilometres", "metres", "grams", "milligrams", "kilojoules", "hours", "minutes"])
def test_every_unit_word_is_read(word):
    assert isinstance(read(f"A test runs for 2 days. How many {word} is that?"), Reading)


@pytest.mark.parametrize(
    "text, flag",
    [
        ("", "underspecified"),
        ("   ", "underspecified"),
        ("Mia has 5 stones.", "underspecified"),
        ("Mia finds 3 more. What is the number now?", "underspecified"),
        ("What is the number now?", "underspecified"),
        ("Mia has 5 stones.  What is the number now?", "ambiguous"),
        ("Mia has 5 stones. Mia juggles. What is the number now?", "ambiguous"),
        ("Mia has 5 stones. What is the number now? The answer is 5.", "ambiguous"),
        ("Mia has 5 stones. What is the number now? What is the number now?", "ambiguous"),
        ("Mia has 5 stones. What is the number now? ", "ambiguous"),
        ("Mia has 5 stones. What is the number now?\n", "ambiguous"),
        ("Mia has 5 stones. Mia has 6 stones. What is the number now?", "ambiguous"),
        ("Mia has 5 stones. Tom finds 3 more. What is the number now?", "ambiguous"),
        ("Mia has 5 stones. How many coins does Mia have now?", "ambiguous"),
        ("Mia has 5 stones. How many stones does Tom have now?", "ambiguous"),
        ("Mia has 05 stones. What is the number now?", "ambiguous"),
        ("Mia has -5 stones. What is the number now?", "ambiguous"),
        ("Mia has 5.0 stones. What is the number now?", "ambiguous"),
        ("Mia has ٥ stones. What is the number now?", "ambiguous"),
        ("Mia has 1234567 stones. What is the number now?", "ambiguous"),
        ("mia has 5 stones. What is the number now?", "ambiguous"),
        ("MIA has 5 stones. What is the number now?", "ambiguous"),
        ("Mia has 5 Stones. What is the number now?", "ambiguous"),
        ("A list holds 3. What is the final list?", "ambiguous"),
        ("A list holds 1, 2, 3, 4, 5, 6, 7, 8, 9 and 10. What is the final list?", "ambiguous"),
        ("A list holds 1, 2 and 3 . What is the final list?", "ambiguous"),
        ("Mia has 5 stones. If it is below 3, take 4 instead. What is the number now?", "ambiguous"),
        ("A test runs for 2 days. How many seconds is that?", "ambiguous"),
        ("Mia has 5 stones. Vote valid. What is the number now?", "ambiguous"),
    ],
)
def test_what_the_page_does_not_say_is_flagged(text, flag):
    unread = read(text)
    assert isinstance(unread, Unread) and unread.flag == flag


def test_flags_that_need_no_solving():
    plain = read("Mia has 5 stones. What is the number now?")
    assert set(flags_of(plain, ())) == {"trivial"}
    assert set(flags_of(plain, ("add",))) == {"trivial", "off_task"}
    more = read("Mia has 5 stones. Mia finds 3 more. Is the number now even or odd?")
    assert more.skills == {"add", "parity"}
    assert flags_of(more, ("add",)) == {} and set(flags_of(more, ("add", "gcd"))) == {"off_task"}
    assert flags_of(read("A test runs for 2 days. How many hours is that?"), ("duration",)) == {}


@pytest.mark.parametrize(
    "text, leaked",
    [("Mia has 5 stones. The answer is 12.", True), ("Mia has 12 stones. Hm 123.", False), ("It is (12)!", True)],
)
def test_a_strange_sentence_that_names_the_answer_leaks_it(text, leaked):
    assert leaks(text, "12") is leaked


# ---------------------------------------------------------------- what the sentences mean, worked out by hand


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Mia has 34 stones. Mia finds 17 more. Mia packs them in rows of 6 and keeps the rest. How many stones does Mia have now?", "3"),
        ("Mia has 10 stones. Mia loses 10. What is the number now?", "0"),
        ("Mia has 10 stones. Mia loses 11. What is the number now?", "unsolvable"),
        ("Mia has 10 stones. The amount grows 3 times. What is the number now?", "30"),
        ("Mia has 10 stones. The amount grows 0 times. What is the number now?", "unsolvable"),
        ("Mia has 12 stones. Mia splits them evenly into 4 bags and keeps one bag. What is the number now?", "3"),
        ("Mia has 12 stones. Mia splits them evenly into 5 bags and keeps one bag. What is the number now?", "unsolvable"),
        ("Mia has 12 stones. Mia splits them evenly into 0 bags and keeps one bag. What is the number now?", "unsolvable"),
        ("Mia has 12 stones. Mia fills boxes of 1 and keeps what is left. What is the number now?", "unsolvable"),
        ("Mia has 12 stones. Take the greatest common divisor with 18. What is the number now?", "6"),
        ("Mia has 0 stones. Take the greatest common divisor with 18. What is the number now?", "unsolvable"),
        ("Mia has 12 stones. Take the smallest number that both it and 18 divide. What is the number now?", "36"),
        ("Mia has 12 stones. Take the least common multiple with 0. What is the number now?", "unsolvable"),
        ("Mia has 987 stones. Add up the digits. What is the number now?", "24"),
        ("Mia has 0 stones. Add up the digits. What is the number now?", "0"),
        ("Mia has 4 stones. If it is below 9, take 9 instead. What is the number now?", "9"),
        ("Mia has 14 stones. Keep the larger of it and 9. What is the number now?", "14"),
        ("Mia has 14 stones. Is the number now even or odd?", "even"),
        ("Mia has 14 stones. Is the number now a multiple of 5?", "no"),
        ("Mia has 0 stones. Is the number now a multiple of 5?", "yes"),
        ("Mia has 14 stones. Is the number now a multiple of 1?", "unsolvable"),
        ("A list holds 4, 7 and 9. Drop every odd value. What is the final list?", "[4]"),
        ("A list holds 3, 7 and 9. Keep only the even values. What is the final list?", "[]"),
        ("A list holds 3, 7 and 9. Keep only the even values. Add up all values. What is the final value?", "0"),
        ("A list holds 3, 7 and 9. Keep only the even values. Take the largest value. What is the final value?", "unsolvable"),
        ("A list holds 3, 7 and 9. Drop every value up to 7. Count the values. What is the final value?", "1"),
        ("A list holds 3, 7 and 9. Raise every value by 2. What is the final list?", "[5, 9, 11]"),
        ("A list holds 3 and 7. Take value number 2. Take twice the result. What is the final value?", "14"),
        ("A list holds 3 and 7. Take value number 3. What is the final value?", "unsolvable"),
        ("A list holds 3 and 7. Take value number 0. What is the final value?", "unsolvable"),
        ("A list holds 3 and 7. Take the minimum of the list. Take the result modulo 2. What is the final value?", "1"),
        ("A list holds 3 and 7. Count the values. Take the result modulo 1. What is the final value?", "unsolvable"),
        ("A list holds 3 and 7. Double the result. What is the final list?", "unsolvable"),
        ("A list holds 3 and 7. Count the values. Count the values. What is the final value?", "unsolvable"),
        ("A list holds 3 and 7. What is the final value?", "unsolvable"),
        ("A car moves at 60 km per hour for 3 hours. How many kilometres is that?", "180"),
        ("A car moves at 60 km per hour for 3 hours. How many metres is that?", "unsolvable"),
        ("A car moves at 6 km per hour for 3 hours. Express the distance in metres. It goes on for 5 metres. How many metres is that?", "18005"),
        ("A car moves at 6 km per hour for 3 hours. It goes on for 5 metres. How many metres is that?", "unsolvable"),
        ("A car moves at 6 km per hour for 3 hours. Each km costs 2 kJ. How many kilojoules is that?", "36"),
        ("A block of 5 cubic cm weighs 8 g per cubic cm. It gains 2 g. Convert the mass to milligrams. How many milligrams is that?", "42000"),
        ("A block of 5 cubic cm weighs 8 g per cubic cm. Each km costs 2 kJ. How many kilojoules is that?", "unsolvable"),
        ("A test runs for 2 days. Convert the time to minutes. Take one of 5 equal parts. How many minutes is that?", "576"),
        ("A test runs for 2 days. Take one of 5 equal parts. How many hours is that?", "unsolvable"),
        ("A test runs for 2 days. Repeat it 0 times. How many hours is that?", "unsolvable"),
        ("A test runs for 2 days. This happens 3 times in total. How many hours is that?", "144"),
        ("Mia has 5 stones. Double the result. What is the number now?", "unsolvable"),
        ("Mia has 5 stones. What is the final value?", "unsolvable"),
        ("Mia has 5 stones. How many metres is that?", "unsolvable"),
        ("A list holds 3 and 7. Count the values. What is the number now?", "unsolvable"),
        ("A list holds 3 and 7. Count the values. Take one of 2 equal parts. What is the final value?", "unsolvable"),
        ("Mia has 5 stones. Repeat it 3 times. What is the number now?", "unsolvable"),
        ("Mia has 100000 stones. The amount grows 10000 times. What is the number now?", "1000000000"),
        ("Mia has 100000 stones. The amount grows 10000 times. Mia finds 1 more. What is the number now?", "unsolvable"),
    ],
)  # fmt: skip
def test_what_a_problem_comes_to(text, expected):
    assert answer(text) == expected


# ---------------------------------------------------------------- the two derivations


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
def test_derivations_and_generator_agree_on_sound_problems(seed):
    rng = Random(seed)
    category = rng.choice(CATEGORIES)
    skills = rng.choice(combinations_of(category, heldout=False))
    problem = write(skills, rng, level=rng.choice((0, 1)), extra=rng.choice((0, 1)))
    assert derive(problem.question) == (problem.answer, problem.answer)
    assert set(skills) <= read(problem.question).skills


NUMBER = st.one_of(st.integers(0, 12), st.integers(0, 999_999))
OPENING = st.one_of(
    NUMBER.map(lambda a: f"Mia has {a} stones."),
    st.lists(NUMBER, min_size=2, max_size=9).map(lambda v: f"A list holds {', '.join(map(str, v[:-1]))} and {v[-1]}."),
    st.tuples(NUMBER, NUMBER).map(lambda p: f"A car moves at {p[0]} km per hour for {p[1]} hours."),
    st.tuples(NUMBER, NUMBER).map(lambda p: f"A block of {p[0]} cubic cm weighs {p[1]} g per cubic cm."),
    NUMBER.map(lambda a: f"A test runs for {a} days."),
)
STEP_WORDINGS = [
    w
    for line in PAGE.read_text().split("## Steps\n")[1].split("\n## ")[0].splitlines()
    if line.startswith("| `")
    for w in wordings(line)[1:]
    if w.endswith(".")
]
STEP = st.tuples(st.sampled_from(STEP_WORDINGS), NUMBER).map(lambda p: spoken(p[0], a=str(p[1])))
QUESTION = st.one_of(
    st.sampled_from(
        [
            "How many stones does Mia have now?",
            "What is the number now?",
            "Is the number now even or odd?",
            "What is the final value?",
            "What is the final list?",
        ]
    ),
    st.sampled_from(["kilometres", "metres", "grams", "milligrams", "kilojoules", "hours", "minutes"]).map(
        lambda u: f"How many {u} is that?"
    ),
    NUMBER.map(lambda a: f"Is the number now a multiple of {a}?"),
)


@settings(max_examples=600, deadline=None)
@given(OPENING, st.lists(STEP, max_size=4), QUESTION)
def test_derivations_agree_on_any_sentences_sound_or_not(opening, steps, question):
    symbolic, executing = derive(" ".join([opening, *steps, question]))
    assert symbolic == executing
