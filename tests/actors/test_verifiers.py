# ruff: noqa: E501 - a problem to a line
"""The reader of the controlled language against its page, and its two derivations against each other and by hand."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from actors.verifiers.mini import compiler, controlled, grammar, symbolic_program
from actors.verifiers.mini.controlled import Clause, Reading, Unread, leaks, read
from actors.verifiers.mini.grammar import Fault, parse
from pipeline.domains.mini.combinations import largest_feasible
from pipeline.domains.mini.domain import CATEGORIES, NAMES, THINGS, skills_in
from pipeline.domains.mini.generate import combinations_of, draft

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


def symbolic(text, offered=()):
    reading = read(text)
    assert isinstance(reading, Reading), reading
    return symbolic_program.solve([(c.rule, c.numbers, c.unit) for c in reading.clauses], offered)


def executing(text):
    sentences = parse(text)
    assert not isinstance(sentences, Fault), sentences
    scope: dict = {}
    exec(compiler.compile_program(sentences), scope)
    return scope["solve"]()


def derive(text):
    """(symbolic, executing) outcomes: an answer, or "unsolvable"."""
    return symbolic(text).get("answer", "unsolvable"), executing(text).get("answer", "unsolvable")


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
        skills = set() if skill == "none" else {skill.strip("`")}
        assert reading.skills() == skills == compiler.skills_of(parse(f"{spoken(template)} What is the number now?"))
    assert len(found) == 5


def test_every_step_of_the_page_is_read_in_every_wording():
    count = 0
    table = PAGE.read_text().split("## Steps\n")[1].split("\n## ")[0]
    for line in table.splitlines():
        if not line.startswith("| `"):
            continue
        skill = wordings(line)[0]
        sentences = [w for w in wordings(line)[1:] if w.endswith(".")]
        assert len(sentences) in (1, 2), line
        for template in sentences:
            reading = read(f"Mia has 5 stones. {spoken(template, a='4')} What is the number now?")
            assert isinstance(reading, Reading), template
            assert reading.steps == (Clause(skill, (4,) if "{a}" in template else ()),)
            _, step, _ = parse(f"Mia has 5 stones. {spoken(template, a='4')} What is the number now?")
            assert (step.rule, step.numbers) == (skill, (4,) if "{a}" in template else ())
            count += 1
    assert count == 50


def test_every_question_of_the_page_is_read():
    table = PAGE.read_text().split("## Questions\n")[1].split("\n## ")[0]
    questions = [w for line in table.splitlines() if line.startswith("|") for w in wordings(line) if w.endswith("?")]
    assert len(questions) == 7
    for template in questions:
        assert isinstance(read(f"Mia has 5 stones. {spoken(template)}"), Reading), template
        assert not isinstance(parse(f"Mia has 5 stones. {spoken(template)}"), Fault), template


@pytest.mark.parametrize("word", ["kilometres", "metres", "grams", "milligrams", "kilojoules", "hours", "minutes"])
def test_every_unit_word_is_read(word):
    assert isinstance(read(f"A test runs for 2 days. How many {word} is that?"), Reading)
    assert not isinstance(parse(f"A test runs for 2 days. How many {word} is that?"), Fault)


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
        ("Mia has 12345 stones. What is the number now?", "ambiguous"),
        ("Mia has 3 thousand. Mia finds 5 more. What is the number now?", "ambiguous"),
        ("Mia has 2 squared. What is the number now?", "ambiguous"),
        ("Votevalid has 5 stones. What is the number now?", "ambiguous"),
        ("Mia has 5 stones. The amount grows 2 times. What is the number now?", "ambiguous"),
        ("A test runs for 2 days. Repeat it 3 times. How many hours is that?", "ambiguous"),
        ("A list holds 3 and 7. Take the value at position 1. What is the final value?", "ambiguous"),
        ("A list holds 3 and 7. Drop every value up to 3. What is the final list?", "ambiguous"),
        (f"Mia has 5 stones. {'Mia finds 3 more. ' * 9}What is the number now?", "ambiguous"),
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
    unread, fault = read(text), parse(text)
    assert isinstance(unread, Unread) and unread.flag == flag
    assert isinstance(fault, Fault) and fault.flag == flag


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
        ("Mia has 10 stones. Then Mia has 3 times as many. What is the number now?", "30"),
        ("Mia has 10 stones. Then Mia has 0 times as many. What is the number now?", "unsolvable"),
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
        ("A list holds 3, 7 and 9. Keep only the values above 7. Count the values. What is the final value?", "1"),
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
        ("A test runs for 2 days. This happens 0 times in total. How many hours is that?", "unsolvable"),
        ("A test runs for 2 days. This happens 3 times in total. How many hours is that?", "144"),
        ("Mia has 5 stones. Double the result. What is the number now?", "unsolvable"),
        ("Mia has 5 stones. What is the final value?", "unsolvable"),
        ("Mia has 5 stones. How many metres is that?", "unsolvable"),
        ("A list holds 3 and 7. Count the values. What is the number now?", "unsolvable"),
        ("A list holds 3 and 7. Count the values. Take one of 2 equal parts. What is the final value?", "unsolvable"),
        ("Mia has 5 stones. This happens 3 times in total. What is the number now?", "unsolvable"),
        ("Mia has 9999 stones. Then Mia has 100 times as many. Mia finds 99 more. What is the number now?", "999999"),
        ("Mia has 9999 stones. Then Mia has 100 times as many. Mia finds 100 more. What is the number now?", "unsolvable"),
    ],
)  # fmt: skip
def test_what_a_problem_comes_to(text, expected):
    assert answer(text) == expected


# ---------------------------------------------------------------- the two derivations


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
@example(29120643)  # two numbers at the start for which the problem holds, of which many tries are repetitions
def test_derivations_and_generator_agree_on_sound_problems(seed):
    rng = Random(seed)
    skills = rng.choice(combinations_of(rng.choice(CATEGORIES), heldout=False, largest=3))
    problem = draft(skills, rng, level=rng.choice((0, 1)), extra=rng.choice((0, 1)))
    one, other = symbolic(problem.question, sorted(skills)), executing(problem.question)
    assert one["answer"] == other["answer"] == problem.answer
    assert set(skills) <= read(problem.question).skills() == compiler.skills_of(parse(problem.question))
    if problem.has_substance:
        assert one["idle"] == other["idle"] == [] and one["most"] == len(skills)


# ---------------------------------------------------------------- what the answer depends on


@pytest.mark.parametrize(
    "text, idle",
    [
        ("Mia has 34 stones. Mia finds 17 more. What is the number now?", []),
        ("Mia has 34 stones. Mia finds 0 more. What is the number now?", [1]),
        ("Mia has 34 stones. Then Mia has 1 times as many. Mia finds 2 more. What is the number now?", [1]),
        ("Mia has 34 stones. Mia finds 5 more. Mia finds 7 more. Mia loses 5. What is the number now?", [1, 3]),
        ("Mia has 34 stones. Mia finds 5 more. Keep the larger of it and 9999. What is the number now?", [0, 1, 2, 3]),
        ("Mia has 34 stones. Keep the larger of it and 3. Mia loses 1. What is the number now?", [1]),
        ("Mia has 34 stones. Keep the larger of it and 30. Mia loses 1. What is the number now?", []),
        ("Mia has 34 stones. Mia finds 4 more. Is the number now even or odd?", [1]),
        ("Mia has 34 stones. Then Mia has 2 times as many. Is the number now even or odd?", [0, 1, 2]),
        ("Mia has 34 stones. Then Mia has 3 times as many. Mia finds 5 more. Is the number now even or odd?", [1]),
        ("A list holds 3, 8 and 6. Keep only the even values. Count the values. What is the final value?", []),
        ("A list holds 3, 8 and 6. Add 4 to every value. Count the values. What is the final value?", [1]),
        ("A list holds 3, 8 and 6. Count the values. What is the final value?", []),
        ("A test runs for 3 days. Convert the time to minutes. How many minutes is that?", []),
    ],
)
def test_both_find_the_parts_that_the_answer_does_not_depend_on(text, idle):
    assert symbolic(text)["idle"] == executing(text)["idle"] == idle


def test_a_product_of_one_factor_is_idle():
    text = "A car moves at 60 km per hour for 1 hours. It needs 1 kJ per km. How many kilojoules is that?"
    assert symbolic(text)["idle"] == [0, 1] and compiler.skills_of(parse(text)) == set()


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(CATEGORIES).flatmap(lambda c: st.sets(st.sampled_from(skills_in(c)), min_size=1, max_size=5)))
def test_all_agree_on_how_many_of_the_skills_offered_go_together(offered):
    (first, *_) = largest_feasible(offered)
    assert symbolic_program.most(sorted(offered)) == compiler.most_together(frozenset(offered)) == len(first)
    foreign = frozenset({*offered, "unknown"})
    assert symbolic_program.most(sorted(foreign)) == compiler.most_together(foreign) == len(first)


def test_the_vocabulary_of_the_readers_is_the_generators():
    assert (
        set(re.findall(r"\w+", controlled.NAME))
        == set(NAMES)
        == set(re.findall(r"[A-Z][a-z]+", str(_terminal("NAME"))))
    )
    assert (
        set(re.findall(r"\w+", controlled.THINGS)) == set(THINGS) == set(re.findall("[a-z]+", str(_terminal("THINGS"))))
    )


def _terminal(name):
    return next(t.pattern.value for t in grammar._PARSER.terminals if t.name == name)
