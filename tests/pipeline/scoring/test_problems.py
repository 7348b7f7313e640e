"""Problems as rows of a file: nothing is lost on the way, and a row that is none is named."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import Failure, Problem
from pipeline.scoring.problems import of_row, read, text

CHECKS = [{"entry": "f", "args": [2, [1.5, "é\u2028"]], "expected": {"a": None}}, {"stdin": "3\n", "stdout": "9\n"}]


def file(path, *lines):
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


kinds = st.sampled_from(["math", "choice", "text"])
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(st.lists(st.tuples(words, words, st.lists(st.sampled_from(CHECKS)), kinds), min_size=1))
def test_what_was_written_is_read(tmp_path_factory, given):
    problems = [Problem.make(q, a, "code" if c else kind, [json.dumps(x) for x in c]) for q, a, c, kind in given]
    path = tmp_path_factory.getbasetemp() / "problems.jsonl"
    path.write_text(text(problems), encoding="utf-8")
    found = [of_row(row) for row in read(path)]
    assert found == problems


def test_a_row_says_the_kind_of_its_answer_and_its_tests():
    plain, program = Problem.make("q", "2"), Problem.make("q", "f", "code", [json.dumps(c) for c in CHECKS])
    first, second = map(json.loads, text([plain, program]).strip().split("\n"))
    assert first == {"question": "q", "answer": "2", "answer_kind": "math"}
    assert second == {"question": "q", "answer": "f", "answer_kind": "code", "checks": CHECKS}


def test_the_front_of_a_benchmark_with_what_it_knows(tmp_path):
    rows = [{"question": f"q{i}\u2028", "answer": i, "category": "x", "steps": i} for i in range(4)]
    path = file(tmp_path / "b.jsonl", *(json.dumps(r, ensure_ascii=False) for r in rows), "{never read")
    assert read(path, 3) == [r | {"answer": str(r["answer"])} for r in rows[:3]]
    with pytest.raises(Failure, match=r"b\.jsonl:5: not JSON; expected"):
        read(path, 10)


def row(checks):
    return json.dumps({"question": "q", "answer": "a", "checks": checks})


@pytest.mark.parametrize(
    "bad, why",
    [
        *((line, "expected") for line in ("{", "[]", "3", '{"question": "q"}', "[" * 99_999)),
        ('{"question": null, "answer": "a"}', "expected"),
        *((row(checks), "checks .*expected a list") for checks in (None, [], {}, "f")),
        (row([CHECKS[0], {"entry": "f"}]), "check 2: .*expected a JSON object"),
        (row([3]), "check 1: .*expected a JSON object"),
        (row(CHECKS * 501), "checks: 1002; expected at most 1000"),
        (row([CHECKS[1] | {"tolerance": 2}]), "check 1: tolerance 2; expected a number from 0"),
        ('{"question": "q", "answer": "a", "answer_kind": "essay"}', "answer_kind 'essay'; expected one of math, "),
        ('{"question": "q", "answer": "a", "answer_kind": "code"}', "checks .*expected a list"),
    ],
)
def test_a_row_that_is_none_is_named(tmp_path, bad, why):
    path = file(tmp_path / "b.jsonl", '{"question": "q", "answer": "a"}', bad)
    with pytest.raises(Failure, match=why) as caught:
        read(path, 10)
    assert str(caught.value).startswith(f"{path}:2: ") and "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_or_holds_nothing(tmp_path):
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    for path in (tmp_path / "absent", tmp_path, tmp_path / "latin", file(tmp_path / "empty", "", " ")):
        with pytest.raises(Failure, match=r"^problems ") as caught:
            read(path, 10)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
