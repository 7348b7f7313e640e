"""Rows of other people's benchmarks, written by hand in the fields that they have."""

from __future__ import annotations

import base64
import json
import pickle
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.chat import solver_messages
from pipeline.records import Failure, Problem
from pipeline.scoring.benchmark_rows import BadRow, read_row
from pipeline.scoring.problems import of_row, read, text

WORKED = "Half of 48 is 24.\n48 + 24 = <<48+24=72>>72\n#### 72"
BOXED = "We get $x = \\boxed{\\frac{1}{2}}$.\nSo \\boxed{\\frac{3}{4}}."


@pytest.mark.parametrize(
    ("row", "answer", "kind"),
    [
        ({"question": "Q?", "answer": WORKED}, "72", "math"),
        ({"question": "Q?", "answer": "#### 1,000"}, "1,000", "math"),
        ({"problem": "Q?", "solution": BOXED}, "\\frac{3}{4}", "math"),
        ({"problem": "Q?", "solution": BOXED, "answer": "0.75"}, "0.75", None),
        ({"problem": "Q?", "solution": BOXED, "answer": "\frac{3}{4}"}, "\\frac{3}{4}", "math"),
        ({"problem": "Q?", "solution": BOXED, "answer": "\\le(1\\right)"}, "\\frac{3}{4}", "math"),
        ({"problem": "Q?", "solution": BOXED, "answer": "\\frac{3}4}"}, "\\frac{3}{4}", "math"),
        ({"problem": "Q?", "solution": BOXED, "answer": "\\left\\{1\\right\\}"}, "\\left\\{1\\right\\}", None),
        ({"Problem": "Q?", "Answer": 204}, "204", None),
        ({"question": "Q?", "final_answer": ["2.5"]}, "2.5", None),
        ({"question": "Q?", "correct_answer": "Paris"}, "Paris", None),
        ({"question": "Q?", "expected_answer": "e"}, "e", None),
        ({"question": "Q?", "solution": "42"}, "42", None),
        ({"question": "Q?", "answer": "Thus \\boxed{7}"}, "7", "math"),
        ({"problem": "Q?", "answer": "7", "choices": ["so it is 7"]}, "7", None),
        ({"question": "Q?", "answer": "#### 7", "answer_kind": "text"}, "#### 7", "text"),
    ],
)
def test_an_answer_is_found_where_the_benchmark_puts_it(row, answer, kind):
    found = read_row(row, 0)
    assert (found["question"], found["answer"], found.get("answer_kind")) == ("Q?", answer, kind)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ([], "list, expected an object"),
        (None, "NoneType"),
        ({"answer": "a"}, "no field question"),
        ({"question": "", "answer": "a"}, "question is empty"),
        ({"question": " \n", "answer": "a"}, "question is empty"),
        ({"question": "q", "answer": " "}, "answer is empty"),
        ({"question": "q", "answer": None}, "no field answer"),
        ({"question": "q"}, "no field answer"),
        ({"question": "q", "answer": True}, "answer is bool"),
        ({"question": "q", "answerA": "x", "answerB": "y", "label": "1"}, "no field answer"),
        ({"question": "q", "answer": ["a", "b"]}, "answer is list"),
        ({"question": "q", "answer": float("nan")}, "answer is nan"),
        ({"question": "q\ud800", "answer": "a"}, "question holds half of a surrogate pair"),
        ({"question": "q", "answer": "so\n#### "}, "marks as the answer is empty"),
        ({"question": "q", "answer": "\\boxed{}"}, "marks as the answer is empty"),
        ({"question": "q", "solution": "It is clear.\nIt is 5."}, "no \\boxed answer"),
        ({"question": "q", "answer": "a", "answer_kind": "essay"}, "answer_kind 'essay'; expected one of math"),
        ({"question": "q", "answer": "a", "options": "a, b"}, "options is str"),
        ({"question": "q", "correct_answer": "a", "incorrect_answers": []}, "1 choices; expected 2 to 10"),
        ({"question": "q", "answer": "a", "options": [str(i) for i in range(11)]}, "11 choices"),
        ({"question": "q", "answer": "c", "options": ["a", ""]}, "one of options is empty"),
        ({"question": "q", "answer": "pie", "options": ["a pie", "a cake"]}, "expected one of the 2 choices"),
        ({"question": "q", "answer": 2, "options": ["x", "y"]}, "expected a number from 0 to 1"),
        ({"question": "q", "answer": "C", "options": ["x", "y"]}, "expected one of the 2 choices"),
        ({"question": "q", "input_output": "{"}, "not JSON"),
        ({"question": "q", "input_output": {"inputs": ["1"], "outputs": []}}, "input_output"),
        ({"question": "q", "public_test_cases": "[3]"}, "expected objects with input and output"),
        ({"question": "q", "private_test_cases": "e30="}, "neither JSON nor packed JSON"),
    ],
)
def test_a_row_that_is_none_says_why(row, why):
    with pytest.raises(BadRow) as caught:
        read_row(row, 0)
    assert why in str(caught.value) and "\n" not in str(caught.value)


def test_a_row_without_question_or_answer_is_refused_with_its_line(tmp_path):
    path = tmp_path / "b.jsonl"
    for bad in ({"question": " ", "answer": "a"}, {"question": "q", "answer": ""}, {"question": "q"}):
        path.write_text(json.dumps({"question": "q", "answer": "a"}) + "\n\n" + json.dumps(bad) + "\n")
        with pytest.raises(Failure) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}:3: ")


# ---------------------------------------------------------------- choices

CITIES = ["Paris", "Rome", "Oslo", "Bern"]


def chosen(row, seed=0):
    """(stem, choices in order, the text of the right one)."""
    found = read_row(row, seed)
    assert found["answer_kind"] == "choice" and found["answer"] in "ABCDEFGHIJ"
    stem, *listed = found["question"].split("\n")
    assert [line[:3] for line in listed] == [f"{letter}. " for letter in "ABCDEFGHIJ"[: len(listed)]]
    options = [line[3:] for line in listed]
    return stem, options, options["ABCDEFGHIJ".index(found["answer"])]


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Q?", "options": CITIES, "answer": "C", "answer_index": 2},
        {"question": "Q?", "options": CITIES, "answer": "(C)"},
        {"question": "Q?", "options": CITIES, "answer": "Oslo"},
        {"question": "Q?", "choices": CITIES, "answer": 2},
        {"question": "Q?", "choices": {"text": CITIES, "label": ["1", "2", "3", "4"]}, "answerKey": "3"},
        {"question": "Q?", "choices": {"text": CITIES, "label": list("ABCD")}, "answerKey": "C"},
        {"question": "Q?", "options": dict(zip("ABCD", CITIES, strict=True)), "answer": "C"},
        {"question": "Q?", "options": [f"{x}) {c}" for x, c in zip("ABCD", CITIES, strict=True)], "answer": "C"},
        {"question": "Q?", "choices": CITIES, "label": 2},
        {"question": "Q?", "correct_answer": "Oslo", "distractor1": "Paris", "distractor2": "Rome",
         "distractor3": "Bern"},
        {"Question": "Q?", "Correct Answer": "Oslo\n", "Incorrect Answer 1": "Paris", "Incorrect Answer 2": "Rome",
         "Incorrect Answer 3": "Bern"},
    ],
)  # fmt: skip
def test_choices_become_part_of_the_question(row):
    stem, options, right = chosen(row)
    assert (stem, sorted(options), right) == ("Q?", sorted(CITIES), "Oslo")


options = st.lists(st.text("abcxyz", min_size=1, max_size=6), min_size=2, max_size=10, unique=True)


@given(options, st.data(), st.integers(0, 99))
def test_the_right_choice_stays_the_right_one_whatever_the_seed(given, data, seed):
    right = data.draw(st.integers(0, len(given) - 1))
    row = {"question": "Q?", "options": given, "answer_index": right}
    stem, order, text = chosen(row, seed)
    assert (stem, sorted(order), text) == ("Q?", sorted(given), given[right])
    assert chosen(row, seed) == (stem, order, text)


def test_the_order_depends_on_the_seed_and_the_question_and_no_place_is_favoured():
    row = {"question": "Q?", "options": CITIES, "answer": "A"}
    assert len({tuple(chosen(row, seed)[1]) for seed in range(40)}) > 10
    letters = [read_row(row | {"question": f"Q{i}?"}, 0)["answer"] for i in range(400)]
    assert all(60 <= letters.count(letter) <= 140 for letter in "ABCD")


@pytest.mark.parametrize("last", ["All of the above", "Both A and B", "A and C", "B only", "Neither A nor B"])
def test_choices_that_point_to_each_other_keep_their_order(last):
    given = ["Paris", "Rome", "Oslo", last]
    for seed in range(9):
        assert chosen({"question": "Q?", "options": given, "answer": "D"}, seed)[1:] == (given, last)


def test_what_a_question_is_about_stands_before_it():
    assert read_row({"passage": "Oslo is cold.", "question": "Is it?", "answer": "yes"}, 0)["question"] == (
        "Oslo is cold.\n\nIs it?"
    )


# ---------------------------------------------------------------- programs


def packed(cases):
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


def test_tests_of_livecodebench_are_checks():
    public = [{"input": "3\n", "output": "9\n", "testtype": "stdin"}]
    private = [{"input": "4\n", "output": "16\n", "testtype": "stdin"}]
    found = read_row(
        {"question_content": "Square it.", "starter_code": "", "public_test_cases": json.dumps(public),
         "private_test_cases": packed(private), "metadata": "{}"}, 0,
    )  # fmt: skip
    assert (found["question"], found["answer_kind"]) == ("Square it.", "code") and found["answer"]
    assert found["checks"] == [{"stdin": "3\n", "stdout": "9\n"}, {"stdin": "4\n", "stdout": "16\n"}]


def test_functional_tests_are_calls_and_the_starter_is_shown():
    cases = [{"input": '[1, 2]\n"ab"', "output": "true", "testtype": "functional"}]
    starter = "class Solution:\n    def f(self, xs, s):"
    row = {"question_content": "Do it.", "starter_code": starter, "public_test_cases": cases,
           "metadata": json.dumps({"func_name": "f"})}  # fmt: skip
    found = read_row(row, 0)
    assert found["checks"] == [{"entry": "f", "args": [[1, 2], "ab"], "expected": True}]
    assert found["question"] == f"Do it.\n\nBegin with this code:\n```python\n{starter}\n```"
    with pytest.raises(BadRow, match="names no function"):
        read_row(row | {"metadata": "{}"}, 0)


def test_tests_of_apps_are_checks():
    found = read_row({"question": "q", "input_output": json.dumps({"inputs": ["1\n"], "outputs": ["2\n"]})}, 0)
    assert found["checks"] == [{"stdin": "1\n", "stdout": "2\n"}]
    calls = {"fn_name": "f", "inputs": [[1, [2]]], "outputs": [3]}
    assert read_row({"question": "q", "input_output": calls}, 0)["checks"] == [
        {"entry": "f", "args": [1, [2]], "expected": 3}
    ]


class Trap:
    def __reduce__(self):
        return (open, ("trap.txt", "w"))


def test_a_pickle_is_never_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hostile = base64.b64encode(zlib.compress(pickle.dumps([Trap(), "[]"]))).decode()
    with pytest.raises(BadRow):
        read_row({"question": "q", "private_test_cases": hostile}, 0)
    assert not (tmp_path / "trap.txt").exists()


# ---------------------------------------------------------------- any row

KEYS = ["question", "Problem", "answer", "solution", "options", "choices", "answer_index", "answer_kind", "checks",
        "Correct Answer", "Incorrect Answer 1", "public_test_cases", "private_test_cases", "input_output", "metadata",
        "category", "final_answer"]  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=30).map(
        lambda b: base64.b64encode(zlib.compress(b)).decode()
    ) | st.sampled_from(["#### 3", "\\boxed{2}", "[1]", "{}", "math"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(KEYS), values, max_size=6) | values, st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_any_row_has_an_outcome(row, seed):
    try:
        found = read_row(row, seed)
    except BadRow as e:
        assert "\n" not in str(e)
    else:
        assert found["question"].strip() and found["answer"].strip()
        assert solver_messages(found["question"], "Solve.")[1]["content"] == found["question"]


@given(st.text(max_size=120) | st.sampled_from(["[" * 99_999, '{"question": ' + "9" * 5000 + "}"]))
@settings(deadline=None)
def test_any_line_has_an_outcome(tmp_path_factory, line):
    path = tmp_path_factory.getbasetemp() / "line.jsonl"
    path.write_text(line, encoding="utf-8")
    try:
        read(path)
    except Failure as e:
        assert "\n" not in str(e)


@given(st.sampled_from(["math", "code", "choice", "text"]), st.sampled_from(["e", "\\boxed{4}", "#### 5", "A", "x\n"]))
def test_the_kind_comes_back_as_it_was_said(tmp_path_factory, kind, answer):
    check = json.dumps({"stdin": "1", "stdout": "2"})
    problem = Problem.make("q", answer, kind, [check] if kind in ("code", "math") else [])
    path = tmp_path_factory.getbasetemp() / "kinds.jsonl"
    path.write_text(text([problem]), encoding="utf-8")
    assert [of_row(row) for row in read(path)] == [problem]
